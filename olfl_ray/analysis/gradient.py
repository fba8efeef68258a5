"""How the gradient that trained theta relates to the task loss's: a far smaller or opposing gradient trains little."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from olfl_ray.records import names

__all__ = ["Gradient", "gradient_of"]

FAR = 100.0
"""A gradient this many times smaller gets a remark."""


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The gradient that theta followed, compared with the task loss's at the same theta on the same batch.

    Args:
        ratio: Ratio of their norms, median over all records.
        cosine: Cosine of the angle between them, mean over all records.
    """

    ratio: float
    cosine: float

    @property
    def far_smaller(self) -> bool:
        """Whether it is a hundredth of the task loss's gradient, or less."""
        return self.ratio * FAR <= 1

    @property
    def against(self) -> bool:
        """Whether a step along it raises the task loss, on average."""
        return self.cosine < 0


def gradient_of(tables: Iterable[pa.Table]) -> Gradient | None:
    """Compute it from the records of some trials; None if they have no such measurements.

    Args:
        tables: Records (`olfl_ray.records.RECORDS`) of each trial.
    """
    ratios, cosines = [], []
    for table in tables:
        own, task, cosine = (
            table.filter(pc.field("metric") == name)["value"].to_pylist()
            for name in (names.TRAIN_GRAD_NORM, names.TRAIN_TASK_GRAD_NORM, names.TRAIN_GRAD_COSINE)
        )
        ratios += [
            norm / other for norm, other in zip(own, task, strict=False) if other and math.isfinite(norm / other)
        ]
        cosines += [value for value in cosine if math.isfinite(value)]
    if not ratios or not cosines:
        return None
    return Gradient(ratio=statistics.median(ratios), cosine=statistics.fmean(cosines))
