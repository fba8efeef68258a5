"""A learned loss on a grid at one moment: its value, its slope, and the pull on the raw output."""

# P grid points, Q outputs, T targets

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from olfl_ray.explain.reference import Array, Reference, Slope, pair_values

__all__ = ["Surface", "pull_of", "surface_of"]

POINTS = 199
SHARES = (0.1, 0.5, 0.9)
"""Targets of a regression whose lines are drawn, as parts of the seen range."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A loss at one moment.

    Args:
        step: Base step.
        target_P: y: 0 and 1 in a classification; three targets of the seen range in a regression.
        output_P: f; each target has all outputs of a line.
        value_P: l(y, f).
        slope_P: d l / d f.
        line_Q: The outputs of `pull`: the target's probability, or f.
        pull_TQ: What gradient descent does: in a classification -d M / d z of the target's logit, where the other classes share
            the rest evenly (T is 1); in a regression -d l / d f, one row per target of the reference.
    """

    step: int
    target_P: Array
    output_P: Array
    value_P: Array
    slope_P: Array
    line_Q: Array
    pull_TQ: Array


def surface_of(network: nn.Module, reference: Reference, step: int) -> Surface:
    """A loss network on the grid of a reference's seen range."""
    low, high = reference.seen["output"]
    both = pair_values(network)
    if reference.classes:
        line = np.linspace(max(low, 0.005), min(high, 0.995), POINTS)
        levels = np.array([0.0, 1.0])
    else:
        line = np.linspace(low, high, POINTS)
        first, last = reference.seen["target"]
        levels = np.array([first + share * (last - first) for share in SHARES])
    target_P, output_P = np.repeat(levels, len(line)), np.tile(line, len(levels))
    value_P, slope_P = both(target_P, output_P)
    pull_TQ = pull_of(lambda y, f: both(y, f)[1], reference, line)
    return Surface(
        step=step,
        target_P=target_P,
        output_P=output_P,
        value_P=value_P,
        slope_P=slope_P,
        line_Q=line,
        pull_TQ=pull_TQ,
    )


def pull_of(slope: Slope, reference: Reference, line_Q: Array) -> Array:
    """The pull of a loss along a line of outputs (T, Q); of a classification -p (1 - p) (l'(1, p) - l'(0, (1 - p) / (C - 1)))."""
    if reference.classes:
        other_Q = (1 - line_Q) / (reference.outputs - 1)
        difference_Q = slope(np.ones_like(line_Q), line_Q) - slope(np.zeros_like(line_Q), other_Q)
        pull: Array = (-line_Q * (1 - line_Q) * difference_Q)[None]
        return pull
    targets_T = np.unique(reference.target_NC)
    return -np.stack([slope(np.full_like(line_Q, y), line_Q) for y in targets_T])
