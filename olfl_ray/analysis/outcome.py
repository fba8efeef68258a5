"""One arm's winner by one metric: its value on each fresh seed, and its comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from olfl_ray.analysis.statistics import Difference, mean, sd

__all__ = ["Outcome"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One arm by one metric of the test split.

    Args:
        metric: The metric's own name, such as `error`.
        goal: minimize or maximize.
        values: The metric by confirming seed.
        trivial: The metric of the best constant prediction, mean over the same seeds; None if unknown.
        difference: Paired comparison with the baseline; None for the baseline itself and with fewer than two common seeds.
    """

    metric: str
    goal: str
    values: Mapping[int, float]
    trivial: float | None
    difference: Difference | None

    @property
    def n(self) -> int:
        """Number of seeds with a value."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if there are none."""
        return mean(list(self.values.values())) if self.values else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds; None with fewer than two."""
        return sd(list(self.values.values())) if self.n > 1 else None

    @property
    def no_better_than_trivial(self) -> bool:
        """Whether a predictor that ignores its inputs does as well."""
        if self.mean is None or self.trivial is None:
            return False
        return self.sign * (self.mean - self.trivial) >= 0 or math.isclose(self.mean, self.trivial)

    @property
    def sign(self) -> int:
        """1 if a lower value is better, -1 if a higher one is."""
        return 1 if self.goal == "minimize" else -1

    @property
    def gain(self) -> float:
        """How much better than the baseline it is, on average; 0 if it is not compared."""
        return 0.0 if self.difference is None else -self.sign * self.difference.mean
