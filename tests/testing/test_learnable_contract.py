"""Every built-in learnable fulfills the contract, and the contract rejects learnables that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from support.learnables import LEARNABLES
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable
from olfl_ray.losses import build_loss
from olfl_ray.losses.margins import Importance, MarginLoss
from olfl_ray.methods.online_lr import LearningRate
from olfl_ray.methods.online_margin import LearnedMargins
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.tasks import task_of
from olfl_ray.testing import LearnableContract


class TestLossNetworkOnClasses(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return build_loss(LearnedLossSpec.model_validate({"hidden": [6]}), self.task, seed=1)


class TestLossNetworkOnNumbers(TestLossNetworkOnClasses):
    task = "regression"
    outputs = 2


class TestLearningRate(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return LearningRate(0.1)


class TestMargins(LearnableContract):
    importance: Importance = "attached"

    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return LearnedMargins(MarginLoss(task_of(self.task), outputs, importance=self.importance))


class TestMarginsOfLabels(TestMargins):
    task = "multilabel"


class TestMarginsWithADetachedFactor(TestMargins):
    importance = "detached"


class TestMarginsWithoutAFactor(TestMargins):
    importance = "none"


class AllHooks(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        torch.manual_seed(2)
        return LEARNABLES["all hooks"](dict(theta), outputs)


TestAllHooks = type("TestAllHooks", (AllHooks,), {})


class _OffByOnePercent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 1.01 * grad


class Weighted(Learnable):
    """A penalty with a strength; the base of learnables that break one rule each."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.3))

    def penalty(self, theta: Mapping[str, Tensor]) -> Tensor:
        return self.strength * torch.stack([value.square().sum() for value in theta.values()]).sum()


class Kept(Weighted):
    def files(self) -> dict[str, bytes]:
        return {}


class Cut(Weighted):
    def penalty(self, theta: Mapping[str, Tensor]) -> Tensor:
        return self.strength.detach() * super().penalty(theta)


class Idle(Weighted):
    def penalty(self, theta: Mapping[str, Tensor]) -> Tensor:
        return super().penalty(theta) * 0.0


class Off(Weighted):
    def penalty(self, theta: Mapping[str, Tensor]) -> Tensor:
        return _OffByOnePercent.apply(self.strength) * super().penalty(theta)


class Reshaped(Weighted):
    def update(self, optimizer: Any, theta: Any, g: Any, state: Any, lr: Any) -> Any:
        found, kept = optimizer.update(theta, g, state, lr)
        return {name: value[None] for name, value in found.items()}, kept


class Renamed(Weighted):
    def start(self, theta: Any) -> Any:
        return {f"my.{name}": value for name, value in theta.items()}


class Hidden(Weighted):
    """Its parameters are in a plain tensor, which is lost when it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.rand(()).double()

    def penalty(self, theta: Mapping[str, Tensor]) -> Tensor:
        return super().penalty(theta) * (1 + self.offset)


class NotANumber(Weighted):
    def measured(self, lr: float) -> dict[str, float]:
        return {"phi/strength": float("nan")}


def with_suite(make: Callable[[], Learnable]) -> LearnableContract:
    class Suite(LearnableContract):
        def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
            return make()

    return Suite()


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (Kept, "its_state_round_trips_through_files"),
        (Hidden, "its_state_round_trips_through_files"),
        (Cut, "its_meta_gradient_equals_central_differences"),
        (Off, "its_meta_gradient_equals_central_differences"),
        (Idle, "error_of_one_percent_would_be_detected"),
        (Reshaped, "its_hooks_keep_names_and_shapes"),
        (Renamed, "its_hooks_keep_names_and_shapes"),
        (NotANumber, "what_it_measures_is_finite"),
    ],
)
def test_learnable_that_breaks_a_rule_is_detected(broken: type[Learnable], claim: str) -> None:
    getattr(with_suite(Weighted), f"test_{claim}")()
    with pytest.raises((AssertionError, SpecError, RuntimeError)):
        getattr(with_suite(broken), f"test_{claim}")()
