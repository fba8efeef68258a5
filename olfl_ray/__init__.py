"""Distributed sweeps for online loss function learning. Lazy: importing it imports none of its subpackages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olfl_ray.engine import Initialised, OnlineLossLearner, initialise, keep_freed_memory, meta_gradient
    from olfl_ray.study import load_loss

__all__ = ["Initialised", "OnlineLossLearner", "initialise", "keep_freed_memory", "load_loss", "meta_gradient"]

_ROOMS = {
    "Initialised": "engine",
    "OnlineLossLearner": "engine",
    "initialise": "engine",
    "keep_freed_memory": "engine",
    "load_loss": "study",
    "meta_gradient": "engine",
}


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"olfl_ray.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
