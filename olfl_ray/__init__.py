"""Distributed sweeps for online loss function learning. Lazy: importing it imports none of its subpackages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from olfl_ray.lazy import lazily

if TYPE_CHECKING:
    from olfl_ray.engine import Initialised, OnlineLossLearner, initialise, keep_freed_memory, meta_gradient
    from olfl_ray.losses import LearnedLoss, LossNetwork
    from olfl_ray.study import Study, dataset, list_studies, load_loss, load_model

    __version__: str

__all__ = [
    "Initialised",
    "LearnedLoss",
    "LossNetwork",
    "OnlineLossLearner",
    "Study",
    "__version__",
    "dataset",
    "initialise",
    "keep_freed_memory",
    "list_studies",
    "load_loss",
    "load_model",
    "meta_gradient",
]

_named = lazily(
    __name__,
    {
        "Initialised": "engine",
        "LearnedLoss": "losses",
        "LossNetwork": "losses",
        "OnlineLossLearner": "engine",
        "Study": "study",
        "dataset": "study",
        "initialise": "engine",
        "keep_freed_memory": "engine",
        "list_studies": "study",
        "load_loss": "study",
        "load_model": "study",
        "meta_gradient": "engine",
    },
)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("olfl_ray")
    return _named(name)
