"""What a loss does to predictions that are optimised directly on it, and its gradients there: filters of a search over formulas."""

# N examples, C outputs

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from olfl_ray.losses.learned.expression import Expression
from olfl_ray.tasks import task_of

__all__ = ["gain", "gradient"]

EXAMPLES, CLASSES = 100, 10
"""Size of the probe; a task whose targets are numbers has one output."""
STEPS, RATE = 100, 0.01
"""Steps of Adam on the predictions, and their size."""


@lru_cache(maxsize=100_000)
def gain(formula: str, kind: str, reduction: str) -> float:
    """By how much the task's primary metric improves when predictions are optimised directly on a loss (rejection protocol).

    The predictions start as standard normal raw outputs, the same for every loss, and take 100 steps of Adam of size 0.01.

    Args:
        formula: The loss, with every weight at 1.
        kind: Name of the task.
        reduction: Over the outputs: mean or sum.

    Returns:
        Positive: it improves. NaN: the loss or a prediction is not finite.
    """
    outputs_NC, targets = _probe(kind)
    after = outputs_NC.clone().requires_grad_()
    optimizer = torch.optim.Adam([after], lr=RATE)
    with _one_thread():
        for _ in range(STEPS):
            after.grad = _slope(formula, kind, reduction, after, targets)
            optimizer.step()
    if not bool(torch.isfinite(after).all()):
        return float("nan")
    return _score(kind, outputs_NC, targets) - _score(kind, after.detach(), targets)


@lru_cache(maxsize=100_000)
def gradient(formula: str, kind: str, reduction: str) -> tuple[float, ...]:
    """The gradient of a loss in the raw outputs, of every output of the probe.

    Args:
        formula: The loss, with every weight at 1.
        kind: Name of the task.
        reduction: Over the outputs: mean or sum.
    """
    outputs_NC, targets = _probe(kind)
    with _one_thread():
        found = _slope(formula, kind, reduction, outputs_NC.clone().requires_grad_(), targets)
    return tuple(found.flatten().tolist())


@contextmanager
def _one_thread() -> Iterator[None]:
    """The probe is small: several threads cost more than they save, the more so next to the trials."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=8)
def _loss(formula: str) -> Expression:
    return Expression(Expression.Config(formula=formula, weights="fixed"))


@torch.enable_grad()
def _slope(formula: str, kind: str, reduction: str, outputs_NC: Tensor, targets: Tensor) -> Tensor:
    """The gradient of the mean over examples in the raw outputs."""
    predictions_NC, targets_NC = task_of(kind).pairs(outputs_NC, targets)
    value_NC = _loss(formula)(predictions_NC, targets_NC)
    value = (value_NC.mean(-1) if reduction == "mean" else value_NC.sum(-1)).mean()
    (slope_NC,) = torch.autograd.grad(value, outputs_NC, allow_unused=True)
    return torch.zeros_like(outputs_NC) if slope_NC is None else slope_NC


@lru_cache(maxsize=8)
def _probe(kind: str) -> tuple[Tensor, Tensor]:
    """Raw outputs (N, C) and targets, always the same, in double precision."""
    task = task_of(kind)
    outputs = CLASSES if task.classes else 1
    random = torch.Generator().manual_seed(0)
    targets = task.examples(EXAMPLES, outputs)
    return (
        torch.randn(EXAMPLES, outputs, generator=random, dtype=torch.float64),
        targets.double() if targets.is_floating_point() else targets,
    )


def _score(kind: str, outputs_NC: Tensor, targets: Tensor) -> float:
    """The task's primary metric, to be minimised."""
    task = task_of(kind)
    metric = next(one for one in task.metrics if one.name == task.primary)
    value = metric.compute(outputs_NC, targets, None)
    return value if metric.goal == "minimize" else -value
