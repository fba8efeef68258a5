"""A schedule: from the fraction of the base steps that is done to a factor on the learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod

from olfl_ray.registry import Registry
from olfl_ray.spec import NamedPart

__all__ = ["SCHEDULES", "Schedule"]


class Schedule(NamedPart, ABC):
    """A schedule of the base learning rate. A subclass is one file."""

    @abstractmethod
    def factor(self, done: float) -> float:
        """The factor on `learner.optimizer.lr`, finite and at least 0.

        Args:
            done: Fraction of `learner.steps` that is done, from 0.
        """


SCHEDULES = Registry("olfl_ray.schedules", Schedule)  # type: ignore[type-abstract]
"""Schedules by name; a user's own is `package.module:Class`, or a function."""
