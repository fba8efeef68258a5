"""Paired comparison over seeds: Student's t, exact tests by sign flips and by signs, Holm's correction of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Difference", "detectable", "holm", "mean", "paired", "sd", "sign_flips", "sign_test"]

Seed = TypeVar("Seed", int, str)

EXACT = 16
"""Up to so many differences all assignments of signs are tried; beyond, so many powers of two at random."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How an arm's test errors differ from another's, seed by seed; below zero the arm errs less.

    Args:
        baseline: The arm compared with.
        n: Seeds that both arms finished.
        mean: Mean difference, arm minus baseline.
        sd: Standard deviation of the differences.
        low: Lower end of the 95 % confidence interval of the mean (Student's t).
        high: Its upper end.
        detectable: Smallest true difference that such a comparison finds with power 0.8 at level 0.05.
        p: Two-sided p value of the paired t-test.
    """

    baseline: str
    n: int
    mean: float
    sd: float
    low: float
    high: float
    detectable: float
    p: float


def paired(baseline: str, own: Mapping[Seed, float], other: Mapping[Seed, float]) -> Difference | None:
    """Compare two arms on the seeds that both have; None below two.

    Args:
        baseline: Name of the other arm.
        own: Test error of the arm by seed.
        other: Test error of the other arm by seed.
    """
    from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes two seconds to import

    shared = [seed for seed in own if seed in other]
    n = len(shared)
    if n < 2:
        return None
    differences = [own[seed] - other[seed] for seed in shared]
    middle, spread = mean(differences), sd(differences)
    if spread <= 1e-12 * max(abs(own[seed]) + abs(other[seed]) for seed in shared):
        p = 1.0 if middle == 0 else 0.0
        return Difference(baseline=baseline, n=n, mean=middle, sd=0.0, low=middle, high=middle, detectable=0.0, p=p)
    error = spread / math.sqrt(n)
    t = float(stdtrit(n - 1, 0.975))
    return Difference(
        baseline=baseline,
        n=n,
        mean=middle,
        sd=spread,
        low=middle - t * error,
        high=middle + t * error,
        detectable=detectable(spread, n),
        p=float(2 * stdtr(n - 1, -abs(middle) / error)),
    )


def detectable(spread: float, n: int, *, level: float = 0.05) -> float:
    """Smallest true difference that a paired t-test finds with power 0.8.

    Args:
        spread: Standard deviation of the differences.
        n: Pairs.
        level: Of the two-sided test.
    """
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2) + stdtrit(n - 1, 0.8)) * spread / math.sqrt(n)


def sign_test(less: int, more: int) -> float:
    """Two-sided p value of so many differences below zero and above, were both signs as likely."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(less, more), less + more, 0.5))) if less + more else 1.0


def sign_flips(differences: Sequence[float]) -> float:
    """Two-sided p value of a mean difference where, were there none, each difference might as well have the other sign.

    It supposes no normal distribution; of n differences it can't be below 2 / 2^n.
    """
    import numpy as np

    n = len(differences)
    if n <= EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**EXACT, n))
        bits[0] = 0  # what was seen is one of the assignments
    means = np.abs((1 - 2 * bits) @ np.asarray(differences, float))
    return float(np.mean(means >= means[0] * (1 - 1e-12)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: their family errs at all with at most the level's probability."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float:
    """The standard deviation of a sample, of two values at least."""
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))
