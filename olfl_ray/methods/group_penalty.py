"""Ordinary training on the task loss plus a group penalty of fixed strength."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from olfl_ray.learnable import Learnable
from olfl_ray.methods.group_strength import PenaltyStrength, check_sections
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import Strict, as_tuple

__all__ = ["GroupPenalty"]


class GroupPenalty(Method):
    """Ordinary training on the task loss plus a group penalty of fixed strength."""

    class Config(Strict):
        """Its settings."""

        strength: Annotated[float, Field(ge=0)] = 1e-3
        """lambda."""
        layers: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
        """Patterns of the names of weights with groups; null: those of the backbone, if the model has one, else all."""

    phi = "nothing"

    def learnable(self, setting: Setting) -> Learnable:
        """The penalty, without a parameter.

        Raises:
            SpecError: A pattern matches nothing, or the optimizer has a strength of its own.
        """
        check_sections(setting, self.config.layers)
        return PenaltyStrength(self.config.strength, self.config.layers, learned=False)
