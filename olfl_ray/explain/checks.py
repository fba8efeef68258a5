"""Where a learned loss is flat, rewards errors, restrains confidence, or is improper."""

# N examples, C outputs, Q outputs of a grid

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from olfl_ray.explain.reference import Array, Reference

__all__ = ["BIAS", "SMALL", "Finding", "findings_of", "is_flat", "minimisers"]

SMALL = 0.01
"""Part of the gradient's root mean square below which a gradient is flat, and above which a push away from the target counts."""
NOTHING = 1e-6
"""A loss is flat everywhere if its gradient's root mean square is at most this part of the task loss's."""
FEW = 0.05
"""Share of flat examples above which a loss is reported as flat: every loss is flat at its minimum."""
BIAS = 0.02
"""A loss is improper if an expected loss's minimum is farther from the truth than this part of the distance of the two targets."""
GRID = 2001
TRUTHS = tuple(k / 20 for k in range(1, 20))
"""True probabilities of the second of two targets."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found.

    Args:
        check: flat (where the task loss is not), rewards errors (it pushes a wrong prediction away from the target),
            restrains confidence (it pushes a right one away), or improper.
        found: Whether it holds; flat: for more than 5 % of the examples; improper: by more than 0.02.
        share: Share of the reference's examples where it holds; of improper: of the true probabilities.
        where: Where, in words; empty: nowhere.
    """

    check: str
    found: bool
    share: float
    where: str


def is_flat(gradient_NC: Array, reference: Reference) -> bool:
    """Whether a loss has almost no gradient anywhere."""
    return _rms(gradient_NC) <= NOTHING * _rms(reference.task_gradient)


def findings_of(gradient_NC: Array, reference: Reference, truths: Array, minima: Array, span: float) -> list[Finding]:
    """The findings on the reference.

    Args:
        gradient_NC: The loss's gradient.
        reference: The examples.
        truths: As of `minimisers`.
        minima: As of `minimisers`.
        span: Distance of the two targets.
    """
    if is_flat(gradient_NC, reference):
        return [Finding(check="flat", found=True, share=1.0, where="everywhere")]
    small = SMALL * _rms(gradient_NC)
    task_N, task_rms = np.sqrt((reference.task_gradient**2).sum(1)), _rms(reference.task_gradient)
    flat_N = (np.sqrt((gradient_NC**2).sum(1)) < small) & (task_N >= SMALL * task_rms)
    if reference.classes:
        toward_N = -gradient_NC[:, 0]  # the target is output 0
        right_N = reference.output_NC[:, 0] >= reference.output_NC[:, 1:].max(1)
        position_N, what = reference.output_NC[:, 0], "target's probability"
    else:
        residual_N = (reference.output_NC - reference.target_NC)[:, 0]
        toward_N = -gradient_NC[:, 0] * -np.sign(residual_N)
        right_N = np.zeros(len(residual_N), dtype=bool)
        position_N, what = residual_N, "output less target"
    away_N = toward_N < -small
    marks = [("flat", flat_N), ("rewards errors", away_N & ~right_N)]
    if reference.classes:
        marks.append(("restrains confidence", away_N & right_N))
    found = [_marked(name, mark_N, position_N, what, FEW if name == "flat" else 0.0) for name, mark_N in marks]
    bias = np.abs(minima - truths)
    worst = int(bias.argmax())
    improper = bias > BIAS * span
    where = ""
    if improper.any():
        of = "probability" if reference.classes else "mean"
        where = f"at a true {of} of {truths[worst]:.3g} the minimum is at {minima[worst]:.3g}"
    return [
        *found,
        Finding(check="improper", found=bool(improper.any()), share=float(improper.mean()), where=where),
    ]


def minimisers(values: Callable[[Array, Array], Array], reference: Reference) -> tuple[Array, Array, float]:
    """The output that minimises the expected loss, for each true probability of the second of two targets.

    In a classification these are two classes, of which the second has the probability q of all C, the first 1 - q: a proper
    loss has its minimum at q equal to the truth (Gneiting and Raftery 2007). In a regression they are the targets at 25 % and
    75 % of the seen range, and the truth is their mean: a loss is consistent for the mean if its minimum is there (Gneiting 2011).

    Args:
        values: (target, output) -> l, elementwise.
        reference: Its seen range bounds the outputs.

    Returns:
        The truths, the minimisers, and the distance of the two targets.
    """
    low, high = reference.seen["output"]
    if reference.classes:
        edge = max(low, 1 - high, 1e-4)
        q = np.linspace(edge, 1 - edge, GRID)
        one, zero = np.ones_like(q), np.zeros_like(q)
        second = values(one, q) + values(zero, 1 - q)
        first = values(zero, q) + values(one, 1 - q)
        ends = (0.0, 1.0)
    else:
        start, end = reference.seen["target"]
        ends = (start + 0.25 * (end - start), start + 0.75 * (end - start))
        q = np.linspace(low, high, GRID)
        first, second = (values(np.full_like(q, y), q) for y in ends)
    truths = np.array([ends[0] + share * (ends[1] - ends[0]) for share in TRUTHS])
    minima = np.array([q[np.argmin(share * second + (1 - share) * first)] for share in TRUTHS])
    return truths, minima, ends[1] - ends[0]


def _marked(check: str, mark_N: Array, position_N: Array, what: str, few: float) -> Finding:
    share = float(mark_N.mean())
    where = ""
    if mark_N.any():
        inside = position_N[mark_N]
        where = f"{share:.1%} of the examples, with {what} from {inside.min():.3g} to {inside.max():.3g}"
    return Finding(check=check, found=share > few, share=share, where=where)


def _rms(gradient_NC: Array) -> float:
    return float(np.sqrt((gradient_NC**2).sum(1).mean()))
