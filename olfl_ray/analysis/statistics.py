"""Paired comparison over seeds: Student's t, exact sign-flip and sign tests, Holm's correction for multiple tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Difference", "detectable", "holm", "mean", "paired", "sd", "sign_flips", "sign_test"]

Seed = TypeVar("Seed", int, str)

EXACT = 16
"""With at most this many differences all sign assignments are enumerated; with more, 2 ** EXACT are drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How an arm's test errors differ from another's, seed by seed; negative if the arm's errors are lower.

    Args:
        baseline: The arm compared with.
        n: Seeds that both arms finished.
        mean: Mean difference, arm minus baseline.
        sd: Standard deviation of the differences.
        low: Lower end of the 95 % confidence interval of the mean (Student's t).
        high: Its upper end.
        detectable: Smallest true difference that such a comparison detects with power 0.8 at level 0.05.
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
    """Compare two arms on the seeds that both have; None with fewer than two.

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
    """Smallest true difference that a paired t-test detects with power 0.8.

    Args:
        spread: Standard deviation of the differences.
        n: Number of pairs.
        level: Level of the two-sided test.
    """
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2) + stdtrit(n - 1, 0.8)) * spread / math.sqrt(n)


def sign_test(less: int, more: int) -> float:
    """Two-sided p value of these numbers of negative and positive differences if both signs are equally likely."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(less, more), less + more, 0.5))) if less + more else 1.0


def sign_flips(differences: Sequence[float]) -> float:
    """Two-sided p value of the mean difference under random sign flips: without an effect both signs are equally likely.

    It does not assume a normal distribution; with n differences it can't be below 2 / 2^n.
    """
    import numpy as np

    n = len(differences)
    if n <= EXACT:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**EXACT, n))
        bits[0] = 0  # the observed signs are one of the assignments
    means = np.abs((1 - 2 * bits) @ np.asarray(differences, float))
    return float(np.mean(means >= means[0] * (1 - 1e-12)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order: they bound the probability of any false positive in the family."""
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
    """The sample standard deviation of at least two values."""
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))
