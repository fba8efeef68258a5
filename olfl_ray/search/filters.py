"""Filters of formulas before they become trials: what they do on a fixed probe. torch is imported when the first is probed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from olfl_ray.search.space import Space

__all__ = ["FIELD", "Gradient", "gains"]

FIELD = "loss.formula"
"""The field that holds the formula of a learned loss."""
TOLERANCE = 1e-3
"""Two gradients are the same if their distance is at most this fraction of the longer one."""


def gains(formula: str, space: Space) -> bool:
    """Whether predictions that are optimised directly on a formula become better (rejection protocol)."""
    from olfl_ray.losses import probe

    return probe.gain(formula, space.task, space.base["loss"]["reduction"]) > 0  # not of NaN


class Gradient:
    """The gradient of a point's formula on the probe, with the point's other values.

    Args:
        point: The point.
        space: Its space.
    """

    def __init__(self, point: Mapping[str, Any], space: Space) -> None:
        from olfl_ray.losses import probe

        self._others = space.spelled({name: value for name, value in point.items() if name != FIELD})
        self._values = probe.gradient(point[FIELD], space.task, space.base["loss"]["reduction"])
        self._length = math.hypot(*self._values)

    def equals(self, other: Gradient) -> bool:
        """Whether the two are the same but for a small fraction, and finite."""
        longer = max(self._length, other._length)
        if self._others != other._others or not abs(self._length - other._length) <= TOLERANCE * longer:
            return False
        return math.dist(self._values, other._values) <= TOLERANCE * longer
