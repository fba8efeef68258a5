"""Cosine annealing without restarts (Loshchilov and Hutter, arXiv 1608.03983)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from olfl_ray.schedules.schedule import Schedule
from olfl_ray.spec import Strict

__all__ = ["Cosine"]


class Cosine(Schedule):
    """Cosine decay from lr to `final` times lr."""

    class Config(Strict):
        """Its settings."""

        final: Annotated[float, Field(ge=0, le=1)] = 0.0
        """Fraction of lr at the last step."""

    config: Config

    def factor(self, done: float) -> float:
        final = self.config.final
        return float(final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
