"""A user's estimator is found by its dotted name, tried on a few examples, and refused if its step or gradient is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import OnlineLossLearner
from olfl_ray.engine import ESTIMATORS, Batch, LearnerState, NamedEstimator, Problem, Sgd, StepResult, reverse
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec


class Same(NamedEstimator):
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
        return self.changed(reverse(problem, state, lr, train, meta, fresh=fresh))

    def changed(self, result: StepResult) -> StepResult:
        return result


def scaled(tensors: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: factor * value for name, value in tensors.items()}


class Larger(Same):
    """Its gradient is 10 percent too large."""

    def changed(self, result: StepResult) -> StepResult:
        return replace(result, phi_grad=scaled(result.phi_grad, 1.1))


class LargerAsSaid(Larger):
    error = 0.11


class OtherStep(Same):
    def changed(self, result: StepResult) -> StepResult:
        return replace(result, theta=scaled(result.theta, 1.01))


class Partial(Same):
    def changed(self, result: StepResult) -> StepResult:
        return replace(result, phi_grad=dict(list(result.phi_grad.items())[1:]))


class Raising(Same):
    def changed(self, result: StepResult) -> StepResult:
        raise ZeroDivisionError("by zero")


class Nothing(Same):
    def changed(self, result: StepResult) -> Any:
        return None


def steps(estimator: str, count: int = 3) -> list[Tensor]:
    """theta and phi after some steps, as vectors."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 5, generator=draw), torch.randint(3, (24,), generator=draw)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    loss = build_loss(LearnedLossSpec(), "classification", seed=1)
    learner = OnlineLossLearner(module, Sgd(), loss, F.cross_entropy, lr=0.1, eta=0.01, estimator=estimator)
    for _ in range(count):
        learner.step((x[:12], y[:12]), (x[12:], y[12:]))
    return [torch.cat([value.detach().flatten() for value in part.parameters()]) for part in (module, loss)]


def test_the_users_own_gradient_is_the_one_that_phi_follows() -> None:
    wanted, same, larger = (steps(name) for name in ("reverse", f"{__name__}:Same", f"{__name__}:LargerAsSaid"))
    assert all(map(torch.equal, same, wanted))
    assert not torch.equal(larger[1], wanted[1])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Larger, "gradient.*`error`"),
        (OtherStep, "base step.*theta"),
        (Partial, "gradient"),
        (Raising, "ZeroDivisionError: by zero"),
        (Nothing, "NoneType.*StepResult"),
    ],
)
def test_a_wrong_estimator_is_refused_before_the_first_step(kind: type[Same], says: str) -> None:
    with pytest.raises(SpecError, match=rf"{kind.__name__}.*{says}") as caught:
        steps(f"{__name__}:{kind.__name__}", 1)
    assert caught.value.field == "meta.estimator"


def test_names_are_files_of_the_package_or_classes() -> None:
    assert ESTIMATORS.names() == ["auto", "exact", "finite_difference", "reverse"]
    with pytest.raises(SpecError, match="did you mean 'reverse'"):
        steps("revers")
    with pytest.raises(SpecError, match="not a subclass of NamedEstimator"):
        steps(f"{__name__}:steps")


def test_it_has_no_step_on_several_micro_batches() -> None:
    module = nn.Linear(4, 3)
    loss = build_loss(LearnedLossSpec(), "classification", seed=1)
    learner = OnlineLossLearner(module, Sgd(), loss, F.cross_entropy, lr=0.1, eta=0.01, estimator=f"{__name__}:Same")
    batch = torch.randn(6, 4), torch.arange(6) % 3
    with pytest.raises(SpecError, match=r"Same.*micro-batches"):
        learner.step_accumulated([batch, batch], [batch])
