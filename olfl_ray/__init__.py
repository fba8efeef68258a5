"""Distributed sweeps for online loss function learning. Lazy: importing it imports none of its rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olfl_ray.losses import read_loss as load_loss

__all__ = ["load_loss"]


def __getattr__(name: str) -> Any:
    if name == "load_loss":
        from olfl_ray.losses import read_loss

        return read_loss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
