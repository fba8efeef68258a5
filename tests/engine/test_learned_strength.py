"""The learned strength: exact through dead groups with every estimator, and it grows only where sparsity helps validation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import Adam, Batch, OnlineLossLearner, Optimizer, ProxAdam, ProxSgd, Sgd, base_step, reverse
from olfl_ray.engine.carried import Grouped
from olfl_ray.engine.groups import group_norms
from olfl_ray.learnable import Learnable
from olfl_ray.losses import LearnedLoss, LossNetwork
from olfl_ray.methods.group_strength import GroupStrength, PenaltyStrength, ProximalStrength
from olfl_ray.tasks import task_of
from olfl_ray.testing.problems import ESTIMATORS, SmallProblem, distance, small_problem

INPUTS, OUTPUTS, SUPPORT = 40, 3, 5


def _problem(learnable: Learnable, optimizer: Optimizer, steps: int = 2) -> SmallProblem:
    return small_problem(task_of("classification"), lambda theta, outputs: learnable, steps=steps, optimizer=optimizer)


def test_gradient_through_dead_and_living_groups_is_exact_with_every_estimator() -> None:
    strength = ProximalStrength(0.8)
    found = _problem(strength, Sgd(momentum=0.9))
    wanted = found.step(reverse)
    share = strength.describe(wanted.theta)["group_sparsity"]
    assert 0.2 < share < 0.9
    for estimator, allowed in ESTIMATORS.values():
        given = found.step(estimator)
        assert distance(given.phi_grad, wanted.phi_grad) <= allowed
        assert all(torch.equal(given.theta[name] == 0, value == 0) for name, value in wanted.theta.items())
    along = wanted.phi_grad["rho"].item()
    assert along == pytest.approx(found.along({"rho": torch.ones(()).double()}), rel=1e-6)


def test_no_gradient_reaches_a_strength_that_has_killed_every_group() -> None:
    found = _problem(ProximalStrength(50.0), Sgd(momentum=0.9), steps=1)
    assert found.step(reverse).phi_grad["rho"] == 0


@pytest.mark.parametrize("optimizer", [ProxSgd(strength=0.5, momentum=0.9), ProxAdam(strength=0.05, eps=1e-3)])
def test_learned_loss_through_a_proximal_optimizer_is_exact_with_every_estimator(optimizer: Optimizer) -> None:
    torch.manual_seed(3)
    found = _problem(LearnedLoss(LossNetwork((8,)), "classification"), optimizer)
    wanted = found.step(reverse)
    dead = [bool((group_norms(value) == 0).any()) for value in wanted.theta.values() if value.dim() > 1]
    assert any(dead)
    for estimator, allowed in ESTIMATORS.values():
        assert distance(found.step(estimator).phi_grad, wanted.phi_grad) <= allowed


@pytest.mark.parametrize("kind", [ProximalStrength, PenaltyStrength])
@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9), Adam(weight_decay=0.1, decoupled=True)])
def test_strength_zero_is_plain_training_bit_for_bit(kind: type[GroupStrength], optimizer: Optimizer) -> None:
    """A fixed strength of 0, and a learned one whose rho is minus infinity."""
    plain, fixed, learned = Learnable(), kind(0.0, learned=False), kind(0.1)
    with torch.no_grad():
        next(learned.parameters()).fill_(-torch.inf)
    ends = []
    for learnable in (plain, fixed, learned):
        found = _problem(learnable, optimizer)
        state = found.state
        for batch in found.train * 3:
            state, _ = base_step(found.problem, state, batch, 0.1)
        ends.append(state)
    for other in ends[1:]:
        assert all(torch.equal(value, other.theta[name]) for name, value in ends[0].theta.items())
        assert all(torch.equal(value, other.opt_state[name]) for name, value in ends[0].opt_state.items())


@pytest.mark.parametrize(
    ("proximal", "plain"),
    [
        (ProxSgd(strength=0.0, momentum=0.9), Sgd(momentum=0.9)),
        (ProxAdam(strength=0.0, weight_decay=0.1), Adam(weight_decay=0.1)),
    ],
)
def test_proximal_optimizer_of_strength_zero_is_the_plain_one(proximal: Optimizer, plain: Optimizer) -> None:
    ends = []
    for optimizer in (proximal, plain):
        found = _problem(Learnable(), optimizer)
        state = found.state
        for batch in found.train * 3:
            state, _ = base_step(found.problem, state, batch, 0.1)
        ends.append(state.theta)
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_proximal_optimizer_is_the_learnable_at_its_strength() -> None:
    ends = []
    fixed = ProximalStrength(0.15, learned=False)
    for learnable, optimizer in ((fixed, Adam(eps=1e-3)), (Learnable(), ProxAdam(eps=1e-3, strength=0.15))):
        found = _problem(learnable, optimizer)
        ends.append(base_step(found.problem, found.state, found.train[0], 0.1)[0].theta)
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert fixed.describe(ends[0])["group_sparsity"] > 0


def _regression(support: int, examples: int, noise: float) -> tuple[Batch, Batch]:
    """Train and meta batches of a linear problem with a planted support."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.zeros(OUTPUTS, INPUTS)
    weight[:, :support] = torch.randn(OUTPUTS, support, generator=draw)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(examples, INPUTS, generator=draw)
        return x, x @ weight.T + noise * torch.randn(examples, OUTPUTS, generator=draw)

    return batch(), batch()


def _learned(strength: GroupStrength, optimizer: Optimizer, lr: float, train: Batch, meta: Batch) -> float:
    torch.manual_seed(0)
    learner = OnlineLossLearner(
        nn.Linear(INPUTS, OUTPUTS, bias=False), optimizer, strength, F.mse_loss, lr=lr, eta=0.03, estimator="exact"
    )
    for _ in range(300):
        learner.step(train, meta)
    return strength.measured(lr)["phi/strength"]


@pytest.mark.parametrize("kind", [ProximalStrength, PenaltyStrength])
@pytest.mark.parametrize(("optimizer", "lr"), [(Sgd(), 0.1), (Adam(), 0.01)])
def test_strength_grows_where_sparsity_helps_and_shrinks_where_it_hurts(
    kind: type[GroupStrength], optimizer: Optimizer, lr: float
) -> None:
    """Few noisy examples of 5 inputs among 40 that matter, and many exact ones of 40 that all do."""
    sparse, dense = _regression(SUPPORT, 50, 1.0), _regression(INPUTS, 400, 0.3)
    assert _learned(kind(0.003), optimizer, lr, *sparse) > 0.05
    assert _learned(kind(0.05), optimizer, lr, *dense) < 0.025


def test_strength_reaches_one_value_from_below_and_from_above() -> None:
    sparse = _regression(SUPPORT, 50, 1.0)
    low, high = (_learned(ProximalStrength(initial), Sgd(), 0.1, *sparse) for initial in (0.003, 0.2))
    assert low == pytest.approx(high, rel=0.1)


def test_optimizer_of_a_loss_with_parameters_has_no_proximal_step_for_them() -> None:
    theta = {"0.weight": torch.randn(3, 2), "task_loss.margin": torch.ones(3)}
    grouped = Grouped(inner=ProxAdam(strength=0.5, weight_decay=0.1), factors={"task_loss": 2.0})
    moved, after = grouped.update(theta, dict(theta), grouped.init(theta), 0.1)
    alone = ProxAdam(strength=0.5, weight_decay=0.1)
    own = {"0.weight": theta["0.weight"]}
    wanted, _ = alone.update(own, dict(own), alone.init(own), 0.1)
    assert torch.equal(moved["0.weight"], wanted["0.weight"])
    assert grouped.describe(moved) == alone.describe(wanted)
    torch.testing.assert_close(moved["task_loss.margin"], torch.full((3,), 0.8))
    assert grouped.metric(after, list(theta))["0.weight"].shape == (3, 2)
