"""The member of a family whose gradient is nearest to a loss's, up to one positive factor."""

# N examples, C outputs, K values of a parameter

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olfl_ray.explain.families import Family
from olfl_ray.explain.reference import Array, Reference

__all__ = ["SLACK", "Member", "Neighbours"]

VALUES = 201
"""Values of the parameter that are tried before the best one is refined."""
SLACK = 0.01
"""A parameter's interval holds the values whose misfit is at most this much larger than the smallest."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """The nearest member of a family.

    With g the loss's gradient and h the member's, factor = max(0, <g, h> / <h, h>) and misfit = |g - factor h| / |g|, which
    is sqrt(1 - cosine^2) where the cosine is positive, else 1.

    Args:
        family: Its name.
        parameter: Name of its parameter; empty: it has none.
        value: The parameter's estimate; NaN where there is none.
        low: Smallest parameter whose misfit is at most 0.01 larger.
        high: Largest.
        identified: Whether that interval is shorter than half of the range that is searched.
        at_bound: Whether the estimate is at an end of that range.
        factor: What the member is multiplied by.
        cosine: Of the two gradients.
        misfit: Relative root mean square of the rest; 0: equal up to the factor, 1: nothing of the gradient.
        formula: The family's formula.
    """

    family: str
    parameter: str
    value: float
    low: float
    high: float
    identified: bool
    at_bound: bool
    factor: float
    cosine: float
    misfit: float
    formula: str

    def __str__(self) -> str:
        if not self.parameter:
            return self.family
        loosely = "" if self.identified else ", which is not identified"
        return f"{self.family} ({self.parameter} {self.value:.3g}{loosely})"


class Neighbours:
    """Finds the nearest members of some families; the members' gradients are computed once for all losses.

    Args:
        reference: Where gradients are compared.
        families: The families.
    """

    def __init__(self, reference: Reference, families: Sequence[Family]) -> None:
        self._reference, self._families = reference, families
        self._tried = {
            family.name: [(float(value), family.gradient(reference, float(value))) for value in _values(family)]
            for family in families
        }

    def of(self, gradient_NC: Array) -> list[Member]:
        """The nearest member of each family, the nearest first; of equal ones, in the families' order.

        Args:
            gradient_NC: The loss's gradient on the reference.

        Raises:
            ValueError: It is 0 everywhere.
        """
        if not gradient_NC.any():
            raise ValueError("a gradient of 0 is near to none")
        members = [self._member(gradient_NC, family) for family in self._families]
        return sorted(members, key=lambda member: round(member.misfit, 3))

    def _member(self, gradient_NC: Array, family: Family) -> Member:
        """The nearest member of one family, by a bounded search of its parameter."""
        tried = self._tried[family.name]
        misfits = [_compared(gradient_NC, member_NC)[2] for _, member_NC in tried]
        best = int(np.argmin(misfits))
        value = low = high = tried[best][0]
        factor, cosine, misfit = _compared(gradient_NC, tried[best][1])
        identified, at_bound = True, False
        if family.parameter:
            from scipy.optimize import minimize_scalar

            def at(value: float) -> float:
                return _compared(gradient_NC, family.gradient(self._reference, value))[2]

            around = tried[max(best - 1, 0)][0], tried[min(best + 1, len(tried) - 1)][0]
            refined = minimize_scalar(at, bounds=around, method="bounded", options={"xatol": 1e-4})
            if refined.fun < misfit:
                value = float(refined.x)
                factor, cosine, misfit = _compared(gradient_NC, family.gradient(self._reference, value))
            inside = [one for (one, _), found in zip(tried, misfits, strict=True) if found <= misfit + SLACK]
            low, high = min(inside, default=value), max(inside, default=value)
            low, high = min(low, value), max(high, value)
            first, last = family.bounds
            identified = misfit < 1 and high - low < (last - first) / 2
            at_bound = min(value - first, last - value) < 1e-3 * (last - first)
        return Member(
            family=family.name,
            parameter=family.parameter,
            value=value,
            low=low,
            high=high,
            identified=identified,
            at_bound=at_bound,
            factor=factor,
            cosine=cosine,
            misfit=misfit,
            formula=family.formula,
        )


def _values(family: Family) -> Array:
    """The values of the parameter that are tried; NaN of a family without one."""
    return np.linspace(*family.bounds, VALUES) if family.parameter else np.array([math.nan])


def _compared(gradient_NC: Array, member_NC: Array) -> tuple[float, float, float]:
    """Factor, cosine and misfit."""
    g, h = float(np.linalg.norm(gradient_NC)), float(np.linalg.norm(member_NC))
    if h == 0 or not math.isfinite(h):
        return 0.0, 0.0, 1.0
    cosine = float((gradient_NC / g * (member_NC / h)).sum())
    if cosine <= 0:
        return 0.0, cosine, 1.0
    factor = cosine * g / h
    return factor, cosine, float(np.linalg.norm(gradient_NC - factor * member_NC)) / g
