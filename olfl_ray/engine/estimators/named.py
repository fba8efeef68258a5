"""Estimators by the name that a spec gives: a file of this package, or `package.module:Class`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.registry import Registry

__all__ = ["ESTIMATORS", "NamedEstimator"]


class NamedEstimator(ABC):
    """An estimator of the meta-gradient that `meta.estimator` may name. A subclass is one file; it is created without arguments.

    Attributes:
        error: Largest distance of its gradient from that of reverse over reverse, relative to the latter's norm, that is
            accepted on a few examples before the first step; rounding is always accepted.
    """

    error: ClassVar[float] = 0.0

    @abstractmethod
    def __call__(
        self,
        problem: Problem,
        state: LearnerState,
        lr: float | Tensor,
        train: Sequence[Batch],
        meta: Batch,
        *,
        fresh: bool = False,
    ) -> StepResult:
        """Arguments and result are those of `olfl_ray.engine.Estimator`."""


ESTIMATORS = Registry("olfl_ray.engine.estimators", NamedEstimator)  # type: ignore[type-abstract]
"""Estimators by name."""
