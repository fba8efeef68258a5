"""One contract suite for the meta-gradient estimators: base learners x optimizers, in float64 against the reference."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from olfl_ray.engine import Adam, Problem, Sgd, exact, reverse
from olfl_ray.losses import LearnedLoss, LossNetwork, SmoothLeakyReLU

LEARNERS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5)),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.4), nn.Tanh(), nn.Linear(16, 5)),
}
OPTIMIZERS = {
    "sgd": Sgd(),
    "momentum": Sgd(momentum=0.9, weight_decay=0.01),
    "nesterov": Sgd(momentum=0.9, nesterov=True),
    "clipped": Sgd(clip_norm=1e-3),
    "adam": Adam(weight_decay=0.01),
    "adamw": Adam(weight_decay=0.01, decoupled=True),
}


def make(learner: str, optimizer, activation: nn.Module | None = None):
    torch.manual_seed(0)
    network = LossNetwork(
        (8, 8), activation or SmoothLeakyReLU(), softplus_output=False, bias=True, init="kaiming_normal"
    )
    problem = Problem(
        module=LEARNERS[learner]().double().train(),
        learned=LearnedLoss(network, "classification").double(),
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=optimizer,
        draws_random=True,
    )
    theta = problem.theta()
    phi = {name: value.detach() for name, value in problem.learned.named_parameters()}
    batch = torch.randn(12, 1, 8, 8, dtype=torch.float64), torch.randint(5, (12,))
    meta = torch.randn(12, 1, 8, 8, dtype=torch.float64), torch.randint(5, (12,))
    return problem, theta, problem.buffers(), optimizer.init(theta), phi, batch, meta


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("learner", LEARNERS)
def test_exact_estimator_equals_reverse_over_reverse(learner: str, optimizer: str) -> None:
    problem, theta, buffers, state, phi, batch, meta = make(learner, OPTIMIZERS[optimizer])
    torch.manual_seed(1)
    wanted = reverse(problem, theta, buffers, state, phi, 0.05, [batch], meta)
    torch.manual_seed(1)
    found = exact(problem, theta, buffers, state, phi, 0.05, [batch], meta)
    size = torch.stack([value.norm() for value in wanted.phi_grad.values()]).norm()
    off = torch.stack([(found.phi_grad[name] - value).norm() for name, value in wanted.phi_grad.items()]).norm()
    assert size > 0
    assert off <= 1e-10 * size
    for part in ("theta", "buffers", "opt_state"):
        for name, value in getattr(wanted, part).items():
            torch.testing.assert_close(getattr(found, part)[name], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("estimator", [exact, reverse])
def test_meta_gradient_equals_central_differences_of_the_whole_step(estimator) -> None:
    problem, theta, buffers, state, phi, batch, meta = make("dropout", Sgd(momentum=0.9), nn.Tanh())
    problem = replace(
        problem, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    )
    theta = problem.theta()
    state = problem.optimizer.init(theta)
    found = estimator(problem, theta, buffers, state, phi, 0.5, [batch], meta).phi_grad
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in phi.items()
        }
        losses = []
        for sign in (1, -1):
            moved = {name: value + sign * 1e-5 * direction[name] for name, value in phi.items()}
            losses.append(reverse(problem, theta, buffers, state, moved, 0.5, [batch], meta).meta_loss.item())
        slope = (losses[0] - losses[1]) / 2e-5
        along = sum((found[name] * direction[name]).sum().item() for name in phi)
        assert along == pytest.approx(slope, rel=1e-5)


def test_adam_is_differentiable_where_the_gradient_is_exactly_zero() -> None:
    optimizer = Adam()
    theta = {"w": torch.ones(3, dtype=torch.float64)}
    grad = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    moved, _ = optimizer.update(theta, {"w": grad}, optimizer.init(theta), 0.1)
    (found,) = torch.autograd.grad(moved["w"].sum(), grad)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(momentum=0.9, nesterov=True, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0, 0.1, True)),
        (Adam(weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
        (Adam(weight_decay=0.1, decoupled=True), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1)),
    ],
)
def test_optimizers_equal_torchs_own(ours, theirs) -> None:
    torch.manual_seed(0)
    value = nn.Parameter(torch.randn(5, dtype=torch.float64))
    other = theirs([value])
    theta, state = {"w": value.detach().clone()}, ours.init({"w": value.detach()})
    for _ in range(5):
        grad = torch.randn(5, dtype=torch.float64)
        value.grad = grad.clone()
        other.step()
        theta, state = ours.update(theta, {"w": grad}, state, 0.1)
    torch.testing.assert_close(theta["w"], value.detach(), rtol=1e-12, atol=1e-13)
