"""Phenomena on losses and curves whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from experiments.paper.phenomena import along, effective_rate, smoothing, step_ms, steps_to_reach
from olfl_ray.losses import LearnedLoss
from olfl_ray.records import names


class Smoothed(nn.Module):
    """Cross-entropy with label smoothing, output by output."""

    def __init__(self, amount: float, classes: int) -> None:
        super().__init__()
        self.amount, self.classes = amount, classes

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return -((1 - self.amount) * target + self.amount / self.classes) * output.log()


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("amount", [0.0, 0.01, 0.1, 0.3])
def test_implicit_smoothing_of_a_smoothed_loss_is_its_smoothing(amount: float, classes: int) -> None:
    loss = LearnedLoss(Smoothed(amount, classes), "classification")
    assert smoothing(loss, classes) == pytest.approx(amount, rel=0.01, abs=1e-4)


class Straight(nn.Module):
    """Falls evenly in the probability of the true class: least at 1, where float32 hardly tells neighbours apart."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return -target * output


def test_a_loss_that_is_least_at_certainty_smooths_nothing() -> None:
    assert smoothing(LearnedLoss(Straight(), "classification"), 10) == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_line_of_a_loss_is_what_the_loss_gives_such_outputs(reduction: str) -> None:
    loss = LearnedLoss(Smoothed(0.1, 4), "classification", reduction)  # type: ignore[arg-type]
    for p in (0.3, 0.7, 0.99):
        logits_BC = torch.log(torch.tensor([[(1 - p) / 3, p, (1 - p) / 3, (1 - p) / 3]]))
        assert along(loss, 4, torch.tensor([p])).item() == pytest.approx(
            loss(logits_BC, torch.tensor([1])).item(), rel=1e-5
        )


def test_steps_to_a_level_are_those_of_the_first_evaluation_at_it() -> None:
    curves = {"selection/error": {10: 0.5, 20: 0.3, 30: 0.4, 40: 0.2}}
    assert [steps_to_reach(curves, level, "selection/error") for level in (0.5, 0.35, 0.3, 0.25, 0.1)] == [
        10,
        20,
        20,
        40,
        None,
    ]
    assert steps_to_reach({}, 0.5, "selection/error") is None


def test_effective_rate_is_the_rate_at_which_the_task_loss_would_step_as_far() -> None:
    curves = {
        names.TRAIN_LR: {10: 0.1, 20: 0.05, 30: 0.05},
        names.TRAIN_GRAD_NORM: {10: 3.0, 20: 1.0, 30: 1.0},
        names.TRAIN_TASK_GRAD_NORM: {10: 1.0, 20: 2.0, 30: 0.0},
    }
    assert effective_rate(curves) == pytest.approx({10: 0.3, 20: 0.025})


def test_time_is_the_median_over_the_records() -> None:
    fast, slow = ({names.PERF_STEPS_PER_SECOND: dict(enumerate(rates))} for rates in ([400.0, 500.0], [100.0]))
    assert step_ms([slow, fast]) == pytest.approx(2.5)
    assert step_ms([{}]) is None
