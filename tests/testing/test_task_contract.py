"""Every built-in task fulfills the contract, and the contract rejects tasks that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from olfl_ray.errors import UserError
from olfl_ray.tasks import TASKS, Head, Metric, Task, task_of
from olfl_ray.tasks.classification import Classification
from olfl_ray.tasks.regression import Regression
from olfl_ray.testing import TaskContract


class BuiltIn(TaskContract):
    name: str

    def make(self) -> Task:
        return TASKS.find(self.name, "task.dataset")()


class TestClassification(BuiltIn):
    name = "classification"


class TestMultilabel(BuiltIn):
    name = "multilabel"


class TestRegression(BuiltIn):
    name = "regression"

    def targets(self, count: int) -> Tensor:
        draw = torch.Generator().manual_seed(4)
        return torch.randn(count, 2, generator=draw) * torch.tensor([3.0, 0.2]) + 5.0


class TestMultiTask(BuiltIn):
    name = "multitask"

    def make(self) -> Task:
        color, mass = (
            Head(name="color", kind="classification", outputs=3),
            Head(name="mass", kind="regression", outputs=2),
        )
        return task_of("multitask", heads=(color, mass), options={"weights": {"mass": 0.5}})


def test_each_built_in_task_is_tested() -> None:
    assert sorted(kind.name for kind in BuiltIn.__subclasses__()) == TASKS.names()


class OnePercentOff(Classification):
    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        return 1.01 * super().pull(predictions, vector)


class WrongShape(Classification):
    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return super().pairs(outputs, targets)[0], targets


class WrongGoal(Classification):
    metrics = (*Classification.metrics[:3], replace(Classification.metrics[3], goal="minimize"))


class NotANumber(Regression):
    metrics = (
        *Regression.metrics,
        Metric(name="x", goal="minimize", unit="", meaning="", compute=lambda *_: float("nan")),
    )


class WithoutPrimary(Regression):
    primary = "error"


class AnyConstant(Regression):
    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        return super().trivial(train_targets, count, outputs) + 0.2


class Peeking(Regression):
    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().scaled(targets, torch.arange(len(targets)).remainder(len(targets) * 3 // 4))


class TooMany(Regression):
    def outputs(self, targets: Tensor) -> int:
        return super().outputs(targets) + 1


class Short(Classification):
    def strata(self, targets: Tensor) -> Tensor:
        return targets[:-1]


class Undrawn(Regression):
    def drawn(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return predictions.log()


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (OnePercentOff, "predictions_have_the_outputs_shape_and_pull_is_their_transposed_derivative"),
        (WrongShape, "predictions_have_the_outputs_shape_and_pull_is_their_transposed_derivative"),
        (WrongGoal, "metrics_are_named_finite_and_better_for_a_better_prediction"),
        (NotANumber, "metrics_are_named_finite_and_better_for_a_better_prediction"),
        (WithoutPrimary, "metrics_are_named_finite_and_better_for_a_better_prediction"),
        (AnyConstant, "the_trivial_prediction_is_the_best_constant"),
        (Peeking, "scaling_uses_only_the_train_split"),
        (TooMany, "it_counts_the_outputs"),
        (Short, "each_split_has_its_part_of_each_stratum"),
        (Undrawn, "learned_loss_can_be_plotted"),
    ],
)
def test_task_that_breaks_a_rule_is_detected(broken: type[Task], claim: str) -> None:
    class Suite(TestRegression):
        def make(self) -> Task:
            return broken()

        def targets(self, count: int) -> Tensor:
            return broken().examples(count, 3) if broken.classes else super().targets(count)

    with pytest.raises((AssertionError, UserError, RuntimeError, IndexError, ValueError)):
        getattr(Suite(), f"test_{claim}")()
