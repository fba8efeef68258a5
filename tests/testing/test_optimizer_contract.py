"""The built-in optimizers keep the contract, and it detects planted faults."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from olfl_ray.engine import Adam, Optimizer, Sgd
from olfl_ray.learnable import Params
from olfl_ray.testing import OptimizerContract


class TestSgd(OptimizerContract):
    def make(self) -> Optimizer:
        return Sgd(momentum=0.5, nesterov=True, weight_decay=0.1)


class TestClippedSgd(OptimizerContract):
    def make(self) -> Optimizer:
        return Sgd(clip_norm=0.5)


class TestAdam(OptimizerContract):
    def make(self) -> Optimizer:
        return Adam(weight_decay=0.1)


class TestAdamW(OptimizerContract):
    def make(self) -> Optimizer:
        return Adam(weight_decay=0.1, decoupled=True, clip_norm=0.5)


Pair = tuple[dict[str, Tensor], dict[str, Tensor]]


class Counting(Sgd):
    """Keeps the number of steps in an attribute, which no checkpoint has."""

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        object.__setattr__(self, "steps", getattr(self, "steps", 0) + 1)
        return super().update(params, grads, state, lr / self.steps)  # type: ignore[attr-defined]


class InPlace(Sgd):
    """Writes into theta."""

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        moved, after = super().update(params, grads, state, lr)
        with torch.no_grad():
            return {name: value.copy_(moved[name]) for name, value in params.items()}, after


class Detached(Sgd):
    """Cuts the derivative in the gradient."""

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        return super().update(params, {name: value.detach() for name, value in grads.items()}, state, lr)


class Decaying(Sgd):
    """Moves what has no gradient."""

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        moved, after = super().update(params, grads, state, lr)
        return {name: 0.9 * value for name, value in moved.items()}, after


class Renaming(Sgd):
    """Its state gets another name at the first step."""

    def init(self, params: Params) -> dict[str, Tensor]:
        return {f"old.{name}": value for name, value in super().init(params).items()}

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        return super().update(params, grads, {name.removeprefix("old."): value for name, value in state.items()}, lr)


class WrongFactor(Sgd):
    """Forgets Nesterov."""

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        return -lr


class Ascending(Sgd):
    """The wrong sign."""

    def update(self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor) -> Pair:
        return super().update(params, grads, state, -lr)

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        return None


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Counting, "a_step_depends_only_on_its_arguments_and_changes_none_of_them"),
        (InPlace, "a_step_depends_only_on_its_arguments_and_changes_none_of_them"),
        (Detached, "its_derivatives_in_gradient_weights_and_rate_are_those_of_central_differences"),
        (Decaying, "a_parameter_without_a_gradient_is_left_alone"),
        (Renaming, "state_keeps_its_names_shapes_and_types"),
        (WrongFactor, "gradient_factor_is_the_derivative_in_the_gradient"),
        (Ascending, "it_descends"),
    ],
)
def test_planted_fault_is_detected(kind: type[Sgd], test: str) -> None:
    class Faulty(OptimizerContract):
        def make(self) -> Optimizer:
            return kind(momentum=0.5, nesterov=True)

    with pytest.raises((AssertionError, RuntimeError)):  # gradcheck raises the second
        getattr(Faulty(), f"test_{test}")()
