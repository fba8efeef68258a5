"""Regressions that share a planted support: test error, and which inputs each way to choose the strength keeps."""

# N examples, D inputs, T tasks

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import Batch, OnlineLossLearner, ProxSgd, Sgd
from olfl_ray.engine.groups import group_norms
from olfl_ray.methods.group_strength import GroupStrength, PenaltyStrength, ProximalStrength

__all__ = ["ARMS", "BEST", "GRID", "NETWORKS", "Found", "Problem", "problem_of", "run_seed"]

INPUTS, SUPPORT, TASKS = 40, 8, 4
EXAMPLES, TESTED = 60, 2000
"""Train examples, and as many validation ones; test examples."""
NOISE = 0.5
"""Standard deviation of the noise, in units of the signal's."""
GRID = tuple(10 ** (exponent / 4) for exponent in range(-12, -2))
"""Fixed strengths: 0.001 to 0.18, four per decade."""
STEPS, LR, ETA, INITIAL = 600, 0.1, 0.03, 1e-3
"""Base steps on all examples at once, base learning rate, meta learning rate (Adam, on rho), strength at the start."""
FIRST = ("0.weight",)
"""Groups: the inputs of the first layer."""

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(INPUTS, TASKS)),
    "perceptron (32)": lambda: nn.Sequential(nn.Linear(INPUTS, 32), nn.Tanh(), nn.Linear(32, TASKS)),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One drawn problem.

    Args:
        train: Inputs and targets (N, T), scaled to variance 1.
        meta: Validation examples: phi, or the strength of a grid, is chosen on them.
        test: Test examples.
        support: Whether an input matters (D,).
    """

    train: Batch
    meta: Batch
    test: Batch
    support: Tensor


@dataclass(frozen=True, kw_only=True)
class Found:
    """One arm's result.

    Args:
        error: Mean squared error on the test examples; the targets' variance is 1.
        strength: lambda at the end.
        sparsity: Fraction of the inputs whose weights are exactly 0.
        f1: F1 of the kept inputs as a prediction of the support.
        meta_error: The same on the validation examples.
        trainings: Networks that were trained for it.
    """

    error: float
    strength: float
    sparsity: float
    f1: float
    meta_error: float
    trainings: int = 1


def problem_of(seed: int) -> Problem:
    """T linear regressions on the same inputs, with weights of their own."""
    draw = torch.Generator().manual_seed(seed)
    support = torch.zeros(INPUTS, dtype=torch.bool)
    support[torch.randperm(INPUTS, generator=draw)[:SUPPORT]] = True
    weight_TD = torch.randn(TASKS, INPUTS, generator=draw) * support
    weight_TD = weight_TD / weight_TD.norm(dim=1, keepdim=True)

    def batch(count: int) -> Batch:
        x_ND = torch.randn(count, INPUTS, generator=draw)
        noise_NT = NOISE * torch.randn(count, TASKS, generator=draw)
        return x_ND, (x_ND @ weight_TD.T + noise_NT) / (1 + NOISE**2) ** 0.5

    return Problem(train=batch(EXAMPLES), meta=batch(EXAMPLES), test=batch(TESTED), support=support)


def _network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name]()


def _error(module: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return F.mse_loss(module(batch[0]), batch[1]).item()


def _found(module: nn.Module, problem: Problem, strength: float) -> Found:
    kept = group_norms(dict(module.named_parameters())[FIRST[0]].detach()) > 0
    hits = int((kept & problem.support).sum())
    return Found(
        error=_error(module, problem.test),
        strength=strength,
        sparsity=1 - kept.double().mean().item(),
        f1=2 * hits / (int(kept.sum()) + SUPPORT),
        meta_error=_error(module, problem.meta),
    )


def _fixed(name: str, seed: int, problem: Problem, strength: float) -> nn.Module:
    module, optimizer = _network(name, seed), ProxSgd(strength=strength, layers=FIRST)
    x, y = problem.train
    for _ in range(STEPS):
        theta = dict(module.named_parameters())
        g = dict(zip(theta, torch.autograd.grad(F.mse_loss(module(x), y), list(theta.values())), strict=True))
        with torch.no_grad():
            for key, value in optimizer.update(theta, g, {}, LR)[0].items():
                theta[key].copy_(value)
    return module


def _dense(name: str, seed: int, problem: Problem) -> Found:
    return _found(_fixed(name, seed, problem, 0.0), problem, 0.0)


def _learned(kind: type[GroupStrength]) -> Callable[[str, int, Problem], Found]:
    def train(name: str, seed: int, problem: Problem) -> Found:
        module, strength = _network(name, seed), kind(INITIAL, FIRST)
        learner = OnlineLossLearner(module, Sgd(), strength, F.mse_loss, lr=LR, eta=ETA, estimator="exact")
        for _ in range(STEPS):
            learner.step(problem.train, problem.meta)
        return _found(module, problem, strength.measured(LR)["phi/strength"])

    return train


def _oracle(name: str, seed: int, problem: Problem) -> Found:
    """Dense training that knows the support: the other inputs are 0."""

    def masked(batch: Batch) -> Batch:
        return batch[0] * problem.support, batch[1]

    told = Problem(
        train=masked(problem.train), meta=masked(problem.meta), test=masked(problem.test), support=problem.support
    )
    return replace(_found(_fixed(name, seed, told, 0.0), told, 0.0), sparsity=1 - SUPPORT / INPUTS, f1=1.0)


BEST = "fixed, best of the grid"
TRAINED: Mapping[str, Callable[[str, int, Problem], Found]] = {
    "dense": _dense,
    "learned (proximal step)": _learned(ProximalStrength),
    "learned (penalised loss)": _learned(PenaltyStrength),
    "oracle: dense on the support": _oracle,
}
ARMS = ("dense", BEST, *list(TRAINED)[1:])
"""The arms, in the order of the table."""


def run_seed(name: str, seed: int) -> tuple[dict[str, Found], list[Found]]:
    """Every arm on one problem, and every strength of the grid.

    Args:
        name: The network.
        seed: Of the problem and of the initial weights.
    """
    problem = problem_of(seed)
    arms = {arm: train(name, seed, problem) for arm, train in TRAINED.items()}
    fixed = [_found(_fixed(name, seed, problem, own), problem, own) for own in GRID]
    best = min(fixed, key=lambda one: one.meta_error)
    return {**arms, BEST: replace(best, trainings=len(GRID))}, fixed
