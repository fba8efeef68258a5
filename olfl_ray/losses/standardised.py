"""A task loss for probabilities is refused for a regression: its targets are standardised, and the loss would have no minimum."""

# B batch, C outputs

from __future__ import annotations

import itertools
import math

import torch

from olfl_ray.errors import SpecError
from olfl_ray.losses.task import TaskLoss

__all__ = ["check_standardised"]

OUTPUTS = (-50.0, -2.0, 2.0, 50.0)
SHARES, OTHERS = (0.0, 0.5, 1.0), (-1.0, 2.0)
"""Targets in [0, 1], and standardised targets that are not."""


def check_standardised(loss: TaskLoss, name: str, outputs: int, device: str) -> None:
    """Refuse a loss that is never negative for targets in [0, 1] but is for others: a binary cross-entropy, say.

    Args:
        loss: A user's task loss.
        name: Its name in the spec.
        outputs: C.
        device: Where it is called.

    Raises:
        SpecError: It is such a loss.
    """

    def lowest(targets: tuple[float, ...]) -> float:
        pairs = itertools.product(OUTPUTS, targets)
        made = ([torch.full((4, outputs), value, device=device) for value in pair] for pair in pairs)
        return min(float(loss(output, target)) for output, target in made)

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            if not lowest(SHARES) >= 0:
                return
        except (Exception, SystemExit):
            return  # the first step says what does not fit
        try:
            least = lowest(OTHERS)
        except (Exception, SystemExit):
            least = -math.inf  # as torch's own on probabilities
    if least < 0:
        raise SpecError(
            "task.loss",
            f"{name!r} is made for probabilities or counts, as a binary cross-entropy is, but float targets are standardised, "
            f"which it has no minimum for (its value reaches {least:.3g}); for classes give "
            "y as integers, y.astype(int).ravel(), with task.loss: auto; for probabilities as targets give task.standardize: "
            "{y: false}; for other targets use squared_error",
        )
