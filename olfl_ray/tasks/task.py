"""A task: the kind of targets, and the metrics of a prediction."""

# N examples, C outputs

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

__all__ = ["Goal", "Metric", "Task"]

Goal = Literal["minimize", "maximize"]
"""Which of two values of a metric is better: the lower or the higher one."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that says how good predictions are.

    Args:
        name: Its name, without the split: `error` is recorded as `selection/error` and `test/error`.
        goal: minimize or maximize.
        unit: Unit of its values; empty where it has none.
        meaning: One line for the reference.
        compute: Called with the outputs (N, C), the targets as the task scaled them, and their scale (C,) or None where
            nothing was scaled; returns the value on the full split.
    """

    name: str
    goal: Goal
    unit: str
    meaning: str
    compute: Callable[[Tensor, Tensor, Tensor | None], float]


class Task(ABC):
    """What is predicted. A subclass is one file; it needs no change elsewhere.

    Attributes:
        metrics: What is measured on a split besides the task loss.
        primary: Name of the metric that the field reports for this task.
    """

    metrics: ClassVar[Sequence[Metric]]
    primary: ClassVar[str]

    @abstractmethod
    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Outputs (count, C) of the best constant prediction: what a predictor that ignores its inputs would say.

        Args:
            train_targets: Targets of the train split, as the task scaled them.
            count: Number of examples to predict.
            outputs: C.
        """
