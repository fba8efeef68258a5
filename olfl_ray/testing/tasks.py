"""Contract of tasks: targets, predictions, losses and metrics are consistent."""

# N examples, C outputs

from __future__ import annotations

import math

import torch
from torch import Tensor

from olfl_ray.data import Dataset, split
from olfl_ray.tasks import Metric, Task, TaskLoss

__all__ = ["TaskContract"]

COUNT, OUTPUTS = 120, 3
POINTS = 7
SLACK = 1e-2
"""How much worse than the trivial prediction a nearly perfect one may be: its calibration error, for example, is not exactly 0."""


class TaskContract:
    """Inherit it in a test module, and override `make`; also `targets`, if the task's own examples are few or have gaps."""

    def make(self) -> Task:
        """The task."""
        raise NotImplementedError

    def targets(self, count: int) -> Tensor:
        """Valid targets of `count` examples."""
        return self.make().examples(count, OUTPUTS)

    def test_it_counts_the_outputs(self) -> None:
        task, targets = self.make(), self.targets(COUNT)
        assert torch.equal(task.checked(targets), targets), "it changes targets that are valid"
        outputs = task.outputs(targets)
        assert outputs == self._outputs(task, outputs).shape[-1] >= 1
        assert (targets.dtype == torch.int64) == task.classes, "`classes` says whether targets are integers"
        shown = self._scaled(task, targets)[0]
        assert task.classes or shown.shape == (COUNT, outputs), "targets have another number of columns than outputs"
        for loss in task.losses.values():
            assert loss(self._outputs(task, outputs), shown).isfinite()

    def test_each_split_has_its_part_of_each_stratum(self) -> None:
        task, targets = self.make(), self.targets(COUNT)
        strata = task.strata(targets)
        assert len(strata) == COUNT, "it needs one stratum for each example"
        kind = f"{type(task).__module__}:{type(task).__qualname__}"
        dataset = Dataset(
            name="x",
            kind=kind,
            x=torch.zeros(COUNT, 1),
            y=targets,
            outputs=task.outputs(targets),
            heads=tuple(task.heads),
        )
        found = split(dataset, study_seed=1, seed=2, test=0.25, meta=0.2, selection=0.2)
        for part in (found.train, found.meta, found.selection, found.test):
            for stratum in strata.unique():
                share = (strata[part] == stratum).float().mean() - (strata == stratum).float().mean()
                assert share.abs() < 0.1, f"stratum {int(stratum)} has another share in a split"
            outputs = task.outputs(targets)
            counts, every = (task.counts(some, outputs) for some in (targets[part], targets))
            if counts is not None and every is not None:
                gap = (counts / len(part) - every / COUNT).abs().max()
                assert gap < 0.1, "a class or label has another share in a split"

    def test_scaling_uses_only_the_train_split(self) -> None:
        task, targets = self.make(), self.targets(COUNT)
        train = torch.arange(COUNT // 2)
        scaled, scale = task.scaled(targets, train)
        assert scaled.dtype == (torch.int64 if task.classes else torch.float32)
        assert scaled.shape == targets.shape
        assert bool(scaled.isfinite().all())
        other = targets.clone()
        other[COUNT // 2 :] = other[COUNT // 2 :].flip(0)
        again, same = task.scaled(other, train)
        assert torch.equal(again[train], scaled[train]), "other splits change the scaled train targets"
        assert (scale is None) == (same is None)
        if scale is not None and same is not None:
            assert torch.equal(scale, same), "other splits change the scale"
            assert bool((scale > 0).all()), "a scale is not above 0"

    def test_predictions_have_the_outputs_shape_and_pull_is_their_transposed_derivative(self) -> None:
        task = self.make()
        targets, _ = self._scaled(task, self.targets(COUNT))
        outputs = self._outputs(task, task.outputs(targets)).double().requires_grad_()
        predictions, shown = task.pairs(outputs, targets)
        assert predictions.shape == outputs.shape == shown.shape
        vector = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2)).double()
        (wanted,) = torch.autograd.grad(predictions, outputs, vector)
        given = task.pull(predictions.detach(), vector)
        torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-12, msg="pull is not J^T v of pairs")

    def test_the_trivial_prediction_is_the_best_constant(self) -> None:
        task = self.make()
        targets, _ = self._scaled(task, self.targets(COUNT))
        count = task.outputs(targets)
        trivial = task.trivial(targets, COUNT, count)
        assert trivial.shape == (COUNT, count)
        assert torch.equal(trivial, trivial[:1].expand(COUNT, count)), "it differs from example to example"
        loss = _first(task)
        least = loss(trivial, targets).item()
        for output in range(count):
            for way in (0.05, -0.05):
                moved = trivial.clone()
                moved[:, output] += way
                assert loss(moved, targets).item() >= least - 1e-6, "another constant has a lower task loss"

    def test_metrics_are_named_finite_and_better_for_a_better_prediction(self) -> None:
        task = self.make()
        targets, scale = self._scaled(task, self.targets(COUNT))
        count = task.outputs(targets)
        trivial = task.trivial(targets, COUNT, count)
        near = _fitted(_first(task), trivial, targets)
        names = [metric.name for metric in task.metrics]
        assert len(set(names)) == len(names), "two metrics have the same name"
        assert task.primary in names, "`primary` names none of the metrics"
        for metric in task.metrics:
            assert metric.name.isidentifier(), f"{metric.name!r} can't be a metric's name"
            assert metric.name != "task_loss", "every task has that metric"
            assert metric.goal in ("minimize", "maximize")
            best, base = (_value(metric, outputs, targets, scale) for outputs in (near, trivial))
            worse = best - base if metric.goal == "minimize" else base - best
            assert worse <= SLACK * max(1.0, abs(base)), (
                f"{metric.name} has the wrong goal, or does not measure quality"
            )

    def test_its_losses_can_be_minimised(self) -> None:
        task = self.make()
        assert task.losses, "it has no task loss"
        targets, _ = self._scaled(task, self.targets(COUNT))
        trivial = task.trivial(targets, COUNT, task.outputs(targets))
        for name, loss in task.losses.items():
            assert loss(trivial, targets).shape == (), f"{name} is not a scalar"
            fitted = _fitted(loss, trivial, targets)
            assert loss(fitted, targets) < loss(trivial, targets), f"{name} has no descent direction"

    def test_learned_loss_can_be_plotted(self) -> None:
        task = self.make()
        levels, line = task.grid(POINTS)
        assert line.shape == (POINTS,)
        for level in levels:
            drawn = task.drawn(line, level.expand(POINTS))
            assert drawn.shape == (POINTS,)
            assert bool(drawn.isfinite().all()), f"the task loss of target {level:g} is not finite on the line"

    def _scaled(self, task: Task, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        return task.scaled(targets, torch.arange(len(targets)))

    def _outputs(self, task: Task, count: int) -> Tensor:
        return torch.randn(COUNT, count, generator=torch.Generator().manual_seed(1))


def _first(task: Task) -> TaskLoss:
    return next(iter(task.losses.values()))


def _fitted(loss: TaskLoss, start: Tensor, targets: Tensor) -> Tensor:
    """Outputs that nearly minimize a loss, without a base learner."""
    outputs = start.clone().requires_grad_()
    adam = torch.optim.Adam([outputs], lr=0.3)
    for _ in range(400):
        adam.zero_grad()
        loss(outputs, targets).backward()
        adam.step()
    return outputs.detach()


def _value(metric: Metric, outputs: Tensor, targets: Tensor, scale: Tensor | None) -> float:
    found = metric.compute(outputs, targets, scale)
    assert isinstance(found, float), f"{metric.name} is {found!r}, not a float"
    assert math.isfinite(found), f"{metric.name} is {found!r}"
    return found
