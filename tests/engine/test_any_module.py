"""Modules as users write them: every estimator gives what reverse over reverse gives, or one message says why it can't."""

from collections.abc import Callable

import pytest
import torch
from support.problems import distance
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import meta_gradient
from olfl_ray.engine import Sgd, StepResult
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

ROWS, FEATURES, OUTPUTS = 8, 6, 3
WAYS = {
    "reverse": {"estimator": "reverse"},
    "exact, low": {"estimator": "exact", "memory": "low"},
    "exact, fast": {"estimator": "exact", "memory": "fast"},
    "auto": {"estimator": "auto"},
}


class Pipe(nn.Module):
    """A module from a function of itself, its parts and its input."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def found(module: nn.Module, x: Tensor, dtype: torch.dtype = torch.float64, **ways: str) -> StepResult:
    torch.manual_seed(2)
    y = torch.arange(len(x)) % OUTPUTS
    learned = build_loss(LearnedLossSpec(), "classification", seed=1).to(dtype)
    return meta_gradient(module, Sgd(), learned, F.cross_entropy, (x, y), (x.flip(0), y.flip(0)), lr=0.1, **ways)


def test_inputs_may_be_integers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(20, 5), nn.Flatten(), nn.Linear(20, OUTPUTS)).double()
    tokens = torch.randint(20, (ROWS, 4))
    results = {name: found(module, tokens, **way).phi_grad for name, way in WAYS.items()}
    for name, value in results.items():
        assert distance(value, results["reverse"]) <= 1e-10, name


def test_outputs_must_be_one_tensor() -> None:
    module = Pipe(lambda self, x: (self.head(x), x), head=nn.Linear(FEATURES, OUTPUTS))
    with pytest.raises(SpecError, match=r"^module: gives a tuple, but must give one tensor; return the outputs alone$"):
        found(module, torch.randn(ROWS, FEATURES), torch.float32)
