"""Families of known losses, each a function of one target and one output with at most one parameter, by its slope in the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from olfl_ray.explain.reference import Array, Reference

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of losses.

    Args:
        name: Its name.
        formula: l(y, f); of a classification f is the probability p, and y is 0 or 1.
        slope: (target, output, parameter, number of outputs) -> d l / d output.
        parameter: Name of the parameter; empty: it has none.
        bounds: Between which values of the parameter the nearest member is searched.
    """

    name: str
    formula: str
    slope: Callable[[Array, Array, float, int], Array]
    parameter: str = ""
    bounds: tuple[float, float] = (0.0, 0.0)

    def gradient(self, reference: Reference, parameter: float) -> Array:
        """The gradient of a member in the raw outputs (N, C)."""
        return reference.gradient(lambda y, f: self.slope(y, f, parameter, reference.outputs))


def _focal(y: Array, p: Array, gamma: float, _: int) -> Array:
    q = 1 - p
    bend = gamma * q ** (gamma - 1) * np.log(p) if gamma else 0.0
    slope: Array = y * (bend - q**gamma / p)
    return slope


FAMILIES: dict[str, tuple[Family, ...]] = {
    "classification": (
        Family(name="cross-entropy", formula="-y log p", slope=lambda y, p, _, c: -y / p),
        Family(
            name="label smoothing",
            formula="-((1 - epsilon) y + epsilon / C) log p",
            slope=lambda y, p, epsilon, c: -((1 - epsilon) * y + epsilon / c) / p,
            parameter="epsilon",
            bounds=(0.0, 0.99),
        ),
        Family(name="focal", formula="-y (1 - p)^gamma log p", slope=_focal, parameter="gamma", bounds=(0.0, 10.0)),
        Family(
            name="Poly-1",
            formula="y (-log p + epsilon (1 - p))",
            slope=lambda y, p, epsilon, c: -y * (1 / p + epsilon),
            parameter="epsilon",
            bounds=(-1.0, 20.0),
        ),
        Family(name="squared error", formula="(y - p)^2", slope=lambda y, p, _, c: 2 * (p - y)),
    ),
    "regression": (
        Family(name="squared error", formula="(y - f)^2", slope=lambda y, f, _, c: 2 * (f - y)),
        Family(name="absolute error", formula="|y - f|", slope=lambda y, f, _, c: np.sign(f - y)),
        Family(
            name="Huber",
            formula="(y - f)^2 / 2 where |y - f| < delta, else delta (|y - f| - delta / 2)",
            slope=lambda y, f, delta, c: np.clip(f - y, -delta, delta),
            parameter="delta",
            bounds=(0.01, 10.0),
        ),
    ),
}
"""By task. Sources: Szegedy et al. 2016, Lin et al. 2017, Leng et al. 2022, Brier 1950; Huber 1964."""
