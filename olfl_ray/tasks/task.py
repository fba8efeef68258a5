"""A task: what the targets are, how predictions are measured, and what a learned loss receives of both."""

# B batch, N examples, C outputs, P pairs

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from olfl_ray.spec import Strict
    from olfl_ray.tasks.heads import Head

__all__ = ["Goal", "Metric", "NoSettings", "Task", "TaskLoss"]

Goal = Literal["minimize", "maximize"]
"""Which of two values of a metric is better: the lower or the higher one."""
TaskLoss = Callable[[Tensor, Tensor], Tensor]
"""From raw outputs and targets to a scalar."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of the quality of predictions.

    Args:
        name: Its name, without the split: `error` is recorded as `selection/error` and `test/error`.
        goal: minimize or maximize.
        unit: Unit of its values; empty if it has none.
        meaning: One line for the reference page.
        compute: Called with the outputs (N, C), the targets as scaled by the task, and their scale (C,) or None if they are
            not scaled; returns the value on the full split.
        decides: Whether it measures decisions, output > 0; the task's thresholds are subtracted from the outputs before.
    """

    name: str
    goal: Goal
    unit: str
    meaning: str
    compute: Callable[[Tensor, Tensor, Tensor | None], float]
    decides: bool = False


class NoSettings:
    """`Strict` itself, imported where settings are read: the engine needs torch alone."""

    def __get__(self, instance: object, owner: type) -> type[Strict]:
        from olfl_ray.spec import Strict

        return Strict


class Task(ABC):
    """What is predicted. A subclass is one file, and needs no change in any other file.

    A data set names its task by `kind`. The defaults are for C real numbers per example without scaling.

    Attributes:
        Config: Its settings, in `task.options`, a subclass of `olfl_ray.spec.Strict`; a subclass without it has none.
        metrics: Metrics of a split besides the task loss.
        conditional: Metrics that are measured only with some settings.
        primary: Name of the metric that is usually reported for this task.
        losses: The task losses that `task.loss` may name; `auto` is the first.
        classes: Whether targets are classes (N,), integers from 0, rather than numbers (N, C).
        labels: Whether the numbers are 0 or 1 for each of C labels; like classes, these have names.
    """

    metrics: ClassVar[Sequence[Metric]]
    conditional: ClassVar[Sequence[Metric]] = ()
    primary: ClassVar[str]
    losses: ClassVar[Mapping[str, TaskLoss]]
    classes: ClassVar[bool] = False
    labels: ClassVar[bool] = False
    Config: ClassVar[type[Strict]] = NoSettings()  # type: ignore[assignment]

    def __init__(self, config: Any = None, heads: Sequence[Head] = ()) -> None:
        """A task of a data set.

        Args:
            config: Its settings; None: the defaults.
            heads: Of a data set with several tasks; empty: it has one.
        """
        self.config, self.heads = config, tuple(heads)

    @abstractmethod
    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Outputs (count, C) of the best constant prediction, that is without looking at the inputs.

        Args:
            train_targets: Targets of the train split, as scaled by the task.
            count: Number of examples to predict.
            outputs: C.
        """

    def checked(self, targets: Tensor) -> Tensor:
        """The targets in the form in which they are stored.

        Args:
            targets: Targets of all examples, classes (N,) int64 or numbers (N, C) float32 or float64.

        Raises:
            ValueError: They are invalid for the task; the message names the problem and the next move.
        """
        return targets

    def counts(self, targets: Tensor, outputs: int) -> Tensor | None:
        """Number of examples (C,) of each class or label; None: targets are neither. Targets below 0 are of no class."""
        if self.labels:
            return (targets > 0).sum(0)
        return targets[targets >= 0].bincount(minlength=outputs) if self.classes else None

    @property
    def tuned(self) -> bool:
        """Whether `thresholds` gives any."""
        return False

    def thresholds(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Thresholds (C,) of the raw outputs, float64, with which decisions on these examples are best; None: it has none.

        Args:
            outputs: Raw outputs (N, C) for the validation split.
            targets: Its targets.
        """
        return None

    def recognizes(self, targets: Tensor) -> bool:
        """Whether targets (N, C) that no task was named for are this task's. Default: no."""
        return False

    def outputs(self, targets: Tensor) -> int:
        """C, the number of outputs that these targets need."""
        return targets.shape[1]

    def strata(self, targets: Tensor) -> Tensor:
        """A stratum (N,) for each example, an integer; each split gets the same fraction of every stratum."""
        return torch.zeros(len(targets))

    def parts(self, targets: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """Positions of the examples of disjoint random parts; default: each has its fraction of every stratum.

        Args:
            targets: Targets of the examples to split.
            fractions: Size of each part; what is left of 1 is in none.
            generator: Of all random numbers.
        """
        strata = self.strata(targets)
        parts: list[list[Tensor]] = [[] for _ in fractions]
        for stratum in strata.unique():
            own = (strata == stratum).nonzero().flatten()
            own = own[torch.randperm(len(own), generator=generator)]
            start = 0
            for part, fraction in zip(parts, fractions, strict=True):
                count = round(fraction * len(own))
                part.append(own[start : start + count])
                start += count
        return [torch.cat(part) for part in parts]

    def metrics_of_outputs(self, names: Sequence[str]) -> Sequence[Metric]:
        """Metrics of single outputs, besides `metrics`. Default: none.

        Args:
            names: Name of each output, in their order.
        """
        return ()

    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        """The targets as used in training, and the scale (C,) by which they were divided; None: not scaled.

        Args:
            targets: Targets of all examples.
            train: Indices of the train split, the only one that may be used.
        """
        return targets.to(torch.float32), None

    def packed(self, found: Any) -> Tensor:
        """Outputs (B, C) from what a base learner with several heads returns."""
        raise NotImplementedError  # called only for a data set with heads

    def shown(self, targets: Tensor, key: str) -> Tensor:
        """The targets of a training batch, of which a task may hide some; `key` names the step, for random draws."""
        return targets

    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of a learned loss, both (B, C): a prediction for each raw output, and the target of each prediction."""
        return outputs, targets

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        """J^T v (B, C), J the derivative of the predictions of `pairs` in the raw outputs, from the predictions."""
        return vector

    def examples(self, count: int, outputs: int) -> Tensor:
        """Targets of `count` examples, such as those in training."""
        return torch.linspace(-1, 1, count)[:, None].expand(count, outputs).contiguous()

    def grid(self, points: int) -> tuple[Tensor, Tensor]:
        """The grid on which a learned loss is plotted: levels of the target, and a line of predictions (points,)."""
        return torch.tensor([-1.0, 0.0, 1.0]), torch.linspace(-3, 3, points)

    def drawn(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The task loss of single pairs (P,), plotted next to a learned loss."""
        return (targets - predictions) ** 2
