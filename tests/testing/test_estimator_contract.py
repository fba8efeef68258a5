"""Every built-in estimator fulfills the contract, and the contract rejects estimators that do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from olfl_ray.engine import Estimator, StepResult, exact, finite_difference, reverse
from olfl_ray.testing import EstimatorContract


class TestReverse(EstimatorContract):
    def make(self) -> Estimator:
        return reverse


class TestExactLow(EstimatorContract):
    def make(self) -> Estimator:
        return partial(exact, memory="low")


class TestExactFast(EstimatorContract):
    def make(self) -> Estimator:
        return partial(exact, memory="fast")


class TestFiniteDifference(EstimatorContract):
    allowed = 2e-3

    def make(self) -> Estimator:
        return finite_difference


def scaled(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 1.01 * value for name, value in found.items()}


def writing(problem: Any, state: Any, *rest: Any, **more: Any) -> StepResult:
    result = reverse(problem, state, *rest, **more)
    state.theta[next(iter(state.theta))].add_(1.0)
    return result


def with_graph(result: StepResult) -> StepResult:
    return replace(result, meta_loss=result.meta_loss.clone().requires_grad_())


def drawing(result: StepResult) -> StepResult:
    torch.rand(1)
    return result


@pytest.mark.parametrize(
    ("fault", "claim"),
    [
        (
            lambda result: replace(result, phi_grad=scaled(result.phi_grad)),
            "its_gradient_is_that_of_reverse_over_reverse",
        ),
        (
            lambda result: replace(result, phi_grad=scaled(result.phi_grad)),
            "its_gradient_is_that_of_central_differences",
        ),
        (lambda result: replace(result, theta=scaled(result.theta)), "its_steps_are_those_of_reverse_over_reverse"),
        (lambda result: replace(result, buffers=scaled(result.buffers)), "its_steps_are_those_of_reverse_over_reverse"),
        (None, "it_does_not_change_its_arguments"),
        (with_graph, "its_results_are_detached_and_not_shared"),
        (drawing, "it_draws_the_random_numbers_of_its_passes"),
    ],
)
def test_estimator_that_breaks_a_rule_is_detected(fault: Callable[[StepResult], StepResult] | None, claim: str) -> None:
    def broken(*parts: Any, **more: Any) -> StepResult:
        return fault(reverse(*parts, **more)) if fault is not None else writing(*parts, **more)

    class Suite(EstimatorContract):
        def make(self) -> Estimator:
            return broken

    with pytest.raises(AssertionError):
        getattr(Suite(), f"test_{claim}")()
