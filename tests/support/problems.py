"""Small learning problems for the engine's contract suite: base learners x optimizers x learned losses, on random data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import Adam, Batch, LearnerState, Optimizer, Problem, Sgd, drawn
from olfl_ray.losses import LearnedLoss, LossNetwork, SmoothLeakyReLU

ROWS, SIDE, OUTPUTS = 10, 8, 4


class SharedWeights(nn.Module):
    """One layer used twice, one matrix shared by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(SIDE * SIDE, 12)
        self.middle, self.again = nn.Linear(12, 12), nn.Linear(12, 12)
        self.again.weight = self.middle.weight
        self.outer = nn.Linear(12, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x.flatten(1)))
        hidden = torch.tanh(self.middle(self.middle(hidden)))
        return self.outer(torch.tanh(self.again(hidden)))


class Residual(nn.Module):
    """Strided, dilated and grouped convolutions around a sum, and batch norms, as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.left = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.after, self.right = nn.BatchNorm2d(6), nn.Conv2d(4, 6, 1, stride=2, groups=2)
        self.head = nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.after(self.left(x)) + self.right(x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(SIDE, 6, batch_first=True), nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.squeeze(1))[0][:, -1])


def with_dead_units() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 12), nn.ReLU(), nn.Linear(12, OUTPUTS))
    with torch.no_grad():
        net[1].bias[:4] = -1e3
    return net


def frozen() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 8), nn.Tanh(), nn.Linear(8, OUTPUTS)
    )
    net[0].weight.requires_grad_(False)
    net[3].bias.requires_grad_(False)
    return net


LEARNERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, OUTPUTS)),
    "mlp with dead units": with_dead_units,
    "smooth mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.Tanh(), nn.Linear(8, OUTPUTS)),
    "lenet": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, OUTPUTS),
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 8, bias=False),
        nn.BatchNorm1d(8, affine=False),
        nn.Linear(8, OUTPUTS),
    ),
    "residual": Residual,
    "dropout": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding="same"),
        nn.Dropout2d(0.3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(192, OUTPUTS),
    ),
    "layer and group norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, OUTPUTS)
    ),
    "one and three dimensions": lambda: nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(1, 2, 3, stride=2, padding="valid"),
        nn.BatchNorm1d(2),
        nn.Tanh(),
        nn.Conv1d(2, 2, 4, padding=1, bias=False),
        nn.Unflatten(2, (5, 3, 2)),
        nn.Conv3d(2, 3, (3, 2, 1), dilation=(2, 1, 1)),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, OUTPUTS),
    ),
    "shared weights": SharedWeights,
    "frozen parameters": frozen,
}

OPTIMIZERS: dict[str, tuple[Optimizer, bool]] = {
    "sgd": (Sgd(), False),
    "momentum and decay": (Sgd(momentum=0.9, weight_decay=0.01), True),
    "nesterov": (Sgd(momentum=0.9, nesterov=True), True),
    "clipped": (Sgd(momentum=0.9, clip_norm=1e-3), False),
    "cold adam": (Adam(), False),
    "warm adam and decay": (Adam(weight_decay=0.01), True),
    "clipped adamw": (Adam(weight_decay=0.01, decoupled=True, clip_norm=1e-2), True),
}
"""Optimizer, and whether its state comes after some steps."""


class Bump(nn.Module):
    """A user's own l_phi without a closed form; one of its parameters is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.idle = nn.Parameter(torch.tensor(1.3)), nn.Parameter(torch.tensor(1.0))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.sin(self.scale * (target - output)) ** 2 + target * output


def _network(activation: nn.Module, softplus_output: bool = False, bias: bool = True) -> LossNetwork:
    return LossNetwork((6, 5), activation, softplus_output=softplus_output, bias=bias, init="kaiming_normal")


LOSSES: dict[str, Callable[[], LearnedLoss]] = {
    "mlp": lambda: LearnedLoss(_network(SmoothLeakyReLU(), bias=False), "classification"),
    "ml3": lambda: LearnedLoss(_network(nn.ReLU(), True, False), "classification", "sum"),
    "softplus": lambda: LearnedLoss(_network(nn.Softplus(), True), "classification"),
    "regression": lambda: LearnedLoss(_network(nn.Tanh()), "regression"),
    "a user's own": lambda: LearnedLoss(Bump(), "regression"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    problem: Problem
    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    state: dict[str, Tensor]
    phi: dict[str, Tensor]
    train: list[Batch]
    meta: Batch

    @property
    def learner(self) -> LearnerState:
        """Its state before the steps."""
        parts = {"theta": self.theta, "buffers": self.buffers, "opt_state": self.state, "phi": self.phi}
        return LearnerState(**parts, meta_state={})

    def step(self, estimator: Callable, lr: float = 0.05, *, fresh: bool = False, **changes):
        """Call an estimator, from the same random state every time."""
        torch.manual_seed(11)
        state = replace(self.learner, **changes)
        return estimator(self.problem, state, lr, self.train, self.meta, fresh=fresh)


def case(
    learner: str, optimizer: str = "sgd", loss: str = "mlp", steps: int = 1, dtype: torch.dtype = torch.float64
) -> Case:
    torch.manual_seed(5)
    chosen, warm = OPTIMIZERS[optimizer]
    learned = LOSSES[loss]().to(dtype)
    regression = learned.kind == "regression"
    module = (Recurrent if learner == "lstm" else LEARNERS[learner])().to(dtype).train()
    problem = Problem(
        module=module,
        learned=learned,
        task_loss=F.mse_loss if regression else F.cross_entropy,
        base_loss=F.mse_loss if regression else F.cross_entropy,
        optimizer=chosen,
        draws_random=False,
    )
    # Different from the module's own, so that a mix-up is visible.
    theta = {name: value + 0.1 * torch.randn_like(value) for name, value in problem.theta().items()}
    few = torch.zeros(2, 1, SIDE, SIDE, dtype=dtype)
    draws, _ = drawn(lambda: problem.train_forward(theta, problem.buffers(), few), few.device)
    problem = replace(problem, draws_random=draws)
    state = chosen.init(theta)
    for _ in range(2 if warm else 0):
        grads = {name: torch.randn_like(value) * (value > -100) for name, value in theta.items()}
        _, state = chosen.update(theta, grads, state, 0.1)

    def batch() -> Batch:
        y = torch.randn(ROWS, OUTPUTS, dtype=dtype) if regression else torch.randint(OUTPUTS, (ROWS,))
        return torch.randn(ROWS, 1, SIDE, SIDE, dtype=dtype), y

    return Case(
        problem=problem,
        theta=theta,
        buffers=problem.buffers(),
        state=state,
        phi={name: value.detach().clone() for name, value in learned.named_parameters()},
        train=[batch() for _ in range(steps)],
        meta=batch(),
    )


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """|found - wanted| / |wanted|, over all entries together."""
    assert found.keys() == wanted.keys()
    off = torch.stack([(found[name] - value).norm() for name, value in wanted.items()]).norm()
    return (off / torch.stack([value.norm() for value in wanted.values()]).norm()).item()
