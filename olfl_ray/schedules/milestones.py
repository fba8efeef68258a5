"""A learning rate that drops at given fractions of the training."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from olfl_ray.schedules.schedule import Schedule
from olfl_ray.spec import Fraction, Strict, as_tuple

__all__ = ["Milestones"]


class Milestones(Schedule):
    """The learning rate times `factor` at each milestone."""

    class Config(Strict):
        """Its settings."""

        at: Annotated[tuple[Fraction, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (0.5, 0.75)
        """Milestones as fractions of `learner.steps`, increasing."""
        factor: Annotated[float, Field(gt=0, le=1)] = 0.1
        """Factor at each milestone."""

        @model_validator(mode="after")
        def _increasing(self) -> Milestones.Config:
            if list(self.at) != sorted(set(self.at)):
                raise ValueError(f"milestones must increase, but at={list(self.at)}; sort them and drop repeats")
            return self

    config: Config

    def factor(self, done: float) -> float:
        return float(self.config.factor ** sum(done >= at for at in self.config.at))
