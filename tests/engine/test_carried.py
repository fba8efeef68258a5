"""A loss with parameters is trained with theta: by every estimator, as a plain loop trains it, with settings of its own."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import (
    Adam,
    Carrier,
    Learnable,
    LearnerState,
    Optimizer,
    Problem,
    Sgd,
    base_step,
    carrying,
    completed,
    exact,
    finite_difference,
    optimizer_for,
    reverse,
)
from olfl_ray.errors import SpecError
from olfl_ray.testing.problems import distance


class Margin(nn.Module):
    """Squared distance of a score to a trained margin, weighted by a trained precision."""

    def __init__(self, outputs: int = 3, lr_factor: float = 1.0) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.full((outputs,), 0.5))
        self.log_variance = nn.Parameter(torch.tensor(0.2))
        self.lr_factor = lr_factor

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs - targets - self.margin).square().mean()
        return torch.exp(-self.log_variance) * error + self.log_variance


class Penalised(Learnable):
    """A learned weight decay."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def penalty(self, theta: dict[str, Tensor]) -> Tensor:
        return self.strength * sum((value.square().sum() for value in theta.values()), torch.zeros(()).double())


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double().train()


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, generator=draw).double(), torch.randn(8, 3, generator=draw).double()


def problem_of(
    base: nn.Module | None = None, learned: nn.Module | None = None, optimizer: Optimizer | None = None
) -> Problem:
    module, base_loss, task_loss = carrying(network(), (base or Margin()).double(), F.mse_loss)
    return Problem(
        module=module,
        learned=learned or Learnable(),
        task_loss=task_loss,
        base_loss=base_loss,
        optimizer=optimizer_for(module, optimizer or Sgd()),
        draws_random=False,
    )


def state_of(problem: Problem) -> LearnerState:
    theta = problem.theta()
    return LearnerState(
        theta=theta,
        buffers=problem.buffers(),
        opt_state=problem.optimizer.init(theta),
        phi=problem.phi(),
        meta_state={},
    )


def test_module_without_such_a_loss_stays_as_it_is() -> None:
    module = network()
    assert carrying(module, F.mse_loss, F.mse_loss) == (module, F.mse_loss, F.mse_loss)
    assert optimizer_for(module, plain := Sgd(weight_decay=0.1)) is plain


def test_names_of_theta_are_the_base_learners_then_the_losses() -> None:
    names = list(problem_of().theta())
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias", "base_loss.margin", "base_loss.log_variance"]


def test_reserved_name_in_a_base_learner_is_refused() -> None:
    module = nn.ModuleDict({"base_loss": nn.Linear(4, 3)})
    with pytest.raises(SpecError, match="base_loss"):
        carrying(module, Margin(), F.mse_loss)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(momentum=0.9), partial(torch.optim.SGD, momentum=0.9)),
        (Adam(weight_decay=0.1, decoupled=True), partial(torch.optim.AdamW, weight_decay=0.1)),
        (Sgd(weight_decay=0.1), partial(torch.optim.SGD, weight_decay=0.1)),
    ],
)
def test_training_equals_a_plain_loop_of_torch(ours: Optimizer, theirs: partial[torch.optim.Optimizer]) -> None:
    """The loss's parameters have a tenth of the learning rate, and no weight decay."""
    problem = problem_of(Margin(lr_factor=0.1), optimizer=ours)
    state = state_of(problem)
    module, loss = network(), Margin().double()
    groups = [
        {"params": list(module.parameters())},
        {"params": list(loss.parameters()), "lr": 0.01, "weight_decay": 0.0},
    ]
    optimizer = theirs(groups, lr=0.1)
    for step in range(5):
        x, y = batch(step)
        state, measured = base_step(problem, state, (x, y), 0.1)
        optimizer.zero_grad()
        value = loss(module(x), y)
        value.backward()
        optimizer.step()
        torch.testing.assert_close(measured["base_loss"], value.detach(), rtol=1e-12, atol=1e-12)
    wanted = dict(module.named_parameters()) | {f"base_loss.{name}": value for name, value in loss.named_parameters()}
    assert not torch.equal(state.theta["base_loss.margin"], Margin().double().margin)
    torch.testing.assert_close(state.theta, {name: value.detach() for name, value in wanted.items()})


def test_all_gradients_are_clipped_together() -> None:
    problem = problem_of(Margin(lr_factor=0.5), optimizer=Sgd(clip_norm=0.05))
    state = state_of(problem)
    after, _ = base_step(problem, state, batch(), 1.0)
    moved = {name: value - state.theta[name] for name, value in after.theta.items()}
    whole = [value * (2 if name.startswith("base_loss") else 1) for name, value in moved.items()]
    assert torch.cat([value.flatten() for value in whole]).norm().item() == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_every_estimator_equals_reverse_and_central_differences(steps: int, factor: float) -> None:
    problem = problem_of(Margin(lr_factor=factor), Penalised().double(), Sgd(momentum=0.9))
    state, train = state_of(problem), [batch(step) for step in range(steps)]
    wanted = reverse(problem, state, 0.1, train, batch(9))
    for estimator, allowed in (
        (partial(exact, memory="low"), 1e-9),
        (partial(exact, memory="fast"), 1e-9),
        (finite_difference, 1e-3),
    ):
        found = estimator(problem, state, 0.1, train, batch(9))
        assert distance(found.phi_grad, wanted.phi_grad) <= allowed
        torch.testing.assert_close(found.theta, wanted.theta)

    def at(strength: float) -> float:
        moved = LearnerState(**{**vars(state), "phi": {"strength": torch.tensor(strength, dtype=torch.float64)}})
        return reverse(problem, moved, 0.1, train, batch(9)).meta_loss.item()

    assert wanted.phi_grad["strength"].item() == pytest.approx((at(0.3 + 1e-5) - at(0.3 - 1e-5)) / 2e-5, rel=1e-6)


def test_prediction_and_evaluation_read_the_placed_parameters() -> None:
    """Also where the tensors in their places need no gradient, as in evaluation."""
    problem = problem_of()
    state, (x, y) = state_of(problem), batch()
    theta = {name: value + 1 for name, value in state.theta.items()}
    outputs = problem.predict(theta, {}, x)
    assert torch.equal(outputs[0, 3:6], theta["base_loss.margin"])
    loss = Margin().double()
    with torch.no_grad():
        loss.margin.add_(1)
        loss.log_variance.add_(1)
        assert problem.base_loss(outputs, y) == loss(outputs[:, :3], y)


def test_task_loss_may_have_parameters_too() -> None:
    module, base_loss, task_loss = carrying(network(), loss := Margin().double(), loss)
    assert base_loss is task_loss
    assert isinstance(module, Carrier)
    assert "task_loss.margin" in dict(module.named_parameters())
    x, y = batch()
    outputs = module(x)
    assert outputs.shape == (8, 3 + 4)
    assert torch.equal(task_loss(outputs, y), loss(outputs[:, :3], y))
    assert torch.equal(completed(module, outputs[:, :3]), outputs)
