"""Distributed sweeps for online loss function learning. Lazy: importing it imports none of its subpackages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olfl_ray.engine import Initialised, OnlineLossLearner, initialise, keep_freed_memory, meta_gradient
    from olfl_ray.study import Study, list_studies, load_loss

__all__ = [
    "Initialised",
    "OnlineLossLearner",
    "Study",
    "initialise",
    "keep_freed_memory",
    "list_studies",
    "load_loss",
    "meta_gradient",
]

_ROOMS = {
    "Initialised": "engine",
    "OnlineLossLearner": "engine",
    "Study": "study",
    "initialise": "engine",
    "keep_freed_memory": "engine",
    "list_studies": "study",
    "load_loss": "study",
    "meta_gradient": "engine",
}


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"olfl_ray.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
