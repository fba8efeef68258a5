"""Multi-task learning: named heads on one base learner; the task loss is L_T = sum over heads of w_h L_h."""

# B batch, N examples, H heads, C_h outputs of a head, C outputs of all heads

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.plugins import nearest
from olfl_ray.spec import Strict, as_tuple
from olfl_ray.tasks.heads import Head, columns, packed, packed_targets, targets_of
from olfl_ray.tasks.task import Metric, Task, TaskLoss

__all__ = ["MultiTask"]

FIELD = "task.options"
DELTA_M, PSEUDO_R2 = "delta_m", "mean_pseudo_r2"


class MultiTask(Task):
    """Each head has a task of its own kind (classification, regression, ...), with its loss and metrics.

    Outputs (B, C) and targets (N, C) of all heads lie side by side; a head's classes are one-hot numbers there. Splits are
    stratified by the first head with classes or labels. A head's metric `error` is called `HEAD_error`, and its loss `HEAD_loss`.
    """

    class Config(Strict):
        """Its settings, in `task.options`."""

        heads: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
        """Heads that are trained, in this order; empty: all that the data set has."""
        weights: dict[str, float] = Field(default_factory=dict)
        """Weight w_h of a head's loss in the task loss, at least 0; a head that is not named has 1."""
        subsets: Literal["all", "random"] = "all"
        """Heads that a training step sees: all | random: a non-empty subset, each equally likely, drawn for each step; its train
        and its meta batch see the same one."""
        reference: dict[str, float] = Field(default_factory=dict)
        """Value of each head's primary metric in single-task training, on its own scale. With it, delta_m is measured: the mean
        over heads of the relative improvement, (S - M) / S where lower is better."""

    primary = PSEUDO_R2
    metrics: ClassVar[Sequence[Metric]] = (
        Metric(
            name=PSEUDO_R2,
            goal="maximize",
            unit="",
            meaning="mean over heads of 1 - loss / loss of the split's best constant prediction: R2 of a regression, McFadden's of "
            "classes; 0: no better than constants, 1: perfect",
            compute=lambda *_: math.nan,  # of no heads
        ),
    )
    conditional: ClassVar[Sequence[Metric]] = (
        Metric(
            name=DELTA_M,
            goal="maximize",
            unit="share",
            meaning="mean over heads of the primary metric's relative improvement over task.options.reference",
            compute=lambda *_: math.nan,
        ),
    )

    def __init__(self, config: Any = None, heads: Sequence[Head] = ()) -> None:
        super().__init__(config or self.Config(), heads)
        given = {head.name: head for head in heads}
        wanted = self.config.heads or tuple(given)
        for name in wanted:
            if name not in given:
                raise SpecError(
                    f"{FIELD}.heads",
                    f"names {name!r}, but the data set has {', '.join(given)}{nearest(name, list(given))}; use these",
                )
        if len(set(wanted)) < len(wanted):
            raise SpecError(f"{FIELD}.heads", f"names a head twice ({', '.join(wanted)}); remove one")
        self.heads = tuple(given[name] for name in wanted)
        self._places, self._tasks = tuple(columns(self.heads)), tuple(head.task for head in self.heads)
        self._losses = tuple(next(iter(task.losses.values())) for task in self._tasks)
        if not heads:  # of no data set: for what is the same of all
            self.losses = {"weighted_sum": self.loss}  # type: ignore[misc]
            return
        self._check_settings()
        self._weights_H: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self.losses = {"weighted_sum": self.loss}  # type: ignore[misc]
        self.metrics = tuple(self._measures())  # type: ignore[misc]
        self.primary = DELTA_M if self.config.reference else PSEUDO_R2  # type: ignore[misc]
        names = [metric.name for metric in self.metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise SpecError("task.dataset", f"has heads of which two metrics are called {twice}; rename one")

    def _check_settings(self) -> None:
        names = [head.name for head in self.heads]
        for field in ("weights", "reference"):
            for name, value in getattr(self.config, field).items():
                if name not in names:
                    raise SpecError(
                        f"{FIELD}.{field}",
                        f"names {name!r}, which is not trained{nearest(name, names)}; use {', '.join(names)}",
                    )
                if field == "weights" and value < 0:
                    raise SpecError(f"{FIELD}.weights.{name}", f"is {value}, but must be at least 0")
                if field == "reference" and value == 0:
                    raise SpecError(f"{FIELD}.reference.{name}", "is 0, to which nothing is relative; leave it out")
        if self.config.reference and len(self.config.reference) < len(names):
            missing = [name for name in names if name not in self.config.reference]
            raise SpecError(f"{FIELD}.reference", f"lacks {', '.join(missing)}; give a value for each head, or none")
        self.weights = tuple(self.config.weights.get(name, 1.0) for name in names)
        if not any(self.weights):
            raise SpecError(f"{FIELD}.weights", "are all 0, so nothing is trained; set one above 0")

    def packed(self, found: Any) -> Tensor:
        """Outputs (B, C) from what a base learner returns.

        Raises:
            SpecError: It does not have the heads' outputs.
        """
        try:
            return packed(self.heads, found)
        except ValueError as error:
            raise SpecError("task.model.name", str(error)) from None

    def head_losses(self, outputs: Tensor, targets: Tensor) -> tuple[list[Tensor], Tensor]:
        """The unweighted loss of each head, and which heads the batch shows (H,), 1 or 0."""
        return self.each(self._losses, outputs, targets)

    def each(
        self, losses: Sequence[Callable[[Tensor, Tensor], Tensor]], outputs: Tensor, targets: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One loss per head, called with its outputs and its targets as its own task has them.

        Args:
            losses: In the order of the heads.
            outputs: (B, C).
            targets: (B, C); NaN throughout a head's columns if the batch does not show it.

        Returns:
            The losses, and which heads are shown (H,); the losses of the others mean nothing.
        """
        starts = [place.start for _, place in self._places]
        shown_H = torch.ones(len(starts), dtype=outputs.dtype, device=outputs.device)
        if self.config.subsets == "random":
            shown_H = torch.stack([~targets[0, start].isnan() for start in starts]).to(outputs.dtype)
            targets = targets.nan_to_num(0.0)
        found = [
            loss(outputs[..., place], targets_of(head, targets[..., place]))
            for loss, (head, place) in zip(losses, self._places, strict=True)
        ]
        return found, shown_H

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L_T = sum of w_h L_h over the heads that the batch shows."""
        return self.weighted(*self.head_losses(outputs, targets))

    def weighted(self, losses: Sequence[Tensor], shown_H: Tensor) -> Tensor:
        """The sum of w_h times a head's loss over the heads that are shown."""
        key = shown_H.device, shown_H.dtype
        if key not in self._weights_H:  # made once: a captured graph can't copy from the host
            self._weights_H[key] = torch.tensor(self.weights, dtype=shown_H.dtype, device=shown_H.device)
        return (shown_H * self._weights_H[key] * torch.stack(list(losses))).sum()

    def shown(self, targets: Tensor, key: str) -> Tensor:
        """The targets of a training batch; NaN for the heads that its random subset lacks."""
        if self.config.subsets == "all":
            return targets
        digest = hashlib.sha256(key.encode()).digest()
        drawn = int.from_bytes(digest[: max(7, len(self.heads) // 8 + 2)], "big")  # more bits than heads
        subset = 1 + drawn % (2 ** len(self.heads) - 1)
        hidden = [not subset >> index & 1 for index, head in enumerate(self.heads) for _ in range(head.outputs)]
        return targets.masked_fill(torch.tensor(hidden, device=targets.device), math.nan)

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """The best constant prediction of each head."""
        found = [
            task.trivial(targets_of(head, train_targets[:, place]), count, head.outputs)
            for task, (head, place) in zip(self._tasks, self._places, strict=True)
        ]
        return torch.cat([part.to(train_targets.device) for part in found], 1)

    def checked(self, targets: Tensor) -> Tensor:
        """The targets (N, C), each head's valid for its task."""
        if not self.heads:
            raise ValueError(
                "targets of kind multitask have names of heads; give them as a dict by head, which a builder returns, or name "
                "another kind"
            )
        for task, (head, place) in zip(self._tasks, self._places, strict=True):
            block = targets[:, place]
            if block.shape[1] != head.outputs or (task.classes and not bool((block.sum(1) == 1).all())):
                raise ValueError(f"the targets of head {head.name} are not {head.outputs} columns of it")
            task.checked(targets_of(head, block))
        return targets

    def outputs(self, targets: Tensor) -> int:
        """C, of all heads together."""
        return sum(head.outputs for head in self.heads)

    def strata(self, targets: Tensor) -> Tensor:
        """The classes of the first head that has classes; without one, splits are random."""
        for head, place in self._places:
            if head.task.classes:
                return targets_of(head, targets[:, place])
        return super().strata(targets)

    def parts(self, targets: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """By the first head with classes or labels, as its task splits; without one, at random."""
        for task, (head, place) in zip(self._tasks, self._places, strict=True):
            if task.classes or task.labels:
                return task.parts(targets_of(head, targets[:, place]), fractions, generator)
        return super().parts(targets, fractions, generator)

    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        """Each head's targets as its task scales them; classes have the scale 1."""
        values, scales = [], []
        for task, (_, place) in zip(self._tasks, self._places, strict=True):
            value, scale = targets[:, place], None
            if not task.classes:
                value, scale = task.scaled(value, train)
            values.append(value.to(torch.float32))
            scales.append(torch.ones(value.shape[1]) if scale is None else scale.to(torch.float32))
        return torch.cat(values, 1), torch.cat(scales)

    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each head's predictions, and targets, which are theirs already."""
        found = [
            task.pairs(outputs[..., place], targets_of(head, targets[..., place]))[0]
            for task, (head, place) in zip(self._tasks, self._places, strict=True)
        ]
        return torch.cat(found, -1), targets

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        """J^T v of each head."""
        found = [
            task.pull(predictions[..., place], vector[..., place])
            for task, (_, place) in zip(self._tasks, self._places, strict=True)
        ]
        return torch.cat(found, -1)

    def examples(self, count: int, outputs: int) -> Tensor:
        """Targets of each head."""
        found = {head.name: head.task.examples(count, head.outputs) for head in self.heads}
        return packed_targets(self.heads, found)

    def _measures(self) -> list[Metric]:
        found = [replace(type(self).metrics[0], compute=self._pseudo_r2)]
        if self.config.reference:
            found.append(replace(self.conditional[0], compute=self._delta_m))
        for index, (task, head) in enumerate(zip(self._tasks, self.heads, strict=True)):
            found.append(
                Metric(
                    name=f"{head.name}_loss",
                    goal="minimize",
                    unit="",
                    meaning=f"unweighted loss of {head.name}",
                    compute=partial(self._head_loss, self._losses[index], index),
                )
            )
            names = head.classes or tuple(map(str, range(head.outputs)))
            for metric in (*task.metrics, *task.metrics_of_outputs(names)):
                found.append(
                    Metric(
                        name=f"{head.name}_{metric.name}",
                        goal=metric.goal,
                        unit=metric.unit,
                        meaning=f"{metric.meaning} of {head.name}",
                        compute=partial(self._of_head, metric, index),
                    )
                )
        return found

    def _block(self, index: int, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        head, place = self._places[index]
        return outputs[:, place], targets_of(head, targets[:, place])

    def _of_head(self, metric: Metric, index: int, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> float:
        own = scale[self._places[index][1]] if scale is not None and not self._tasks[index].classes else None
        return metric.compute(*self._block(index, outputs, targets), own)

    def _head_loss(self, loss: TaskLoss, index: int, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> float:
        return loss(*self._block(index, outputs, targets)).item()

    def _pseudo_r2(self, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> float:
        found = []
        for index, (task, loss) in enumerate(zip(self._tasks, self._losses, strict=True)):
            output, target = self._block(index, outputs.double(), targets)
            target = target if task.classes else target.double()
            if bool((target == target[0]).all()):  # a constant is perfect
                return math.nan
            constant = task.trivial(target, len(target), output.shape[1]).to(output)
            found.append(1 - loss(output, target).item() / loss(constant, target).item())
        return sum(found) / len(found)

    def _delta_m(self, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> float:
        found = []
        for index, (task, head) in enumerate(zip(self._tasks, self.heads, strict=True)):
            metric = next(one for one in task.metrics if one.name == task.primary)
            single: float = self.config.reference[head.name]
            gain = (self._of_head(metric, index, outputs, targets, scale) - single) / abs(single)
            found.append(gain if metric.goal == "maximize" else -gain)
        return sum(found) / len(found)
