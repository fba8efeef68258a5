"""Distributed sweeps for online loss function learning. Lazy: importing it imports none of its rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olfl_ray.study import load_loss

__all__ = ["load_loss"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from olfl_ray import study

        return getattr(study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
