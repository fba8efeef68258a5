"""The strength of a group penalty on the backbone is learned (after Meta-Sparsity: arXiv 2501.12115; docs/sparsity.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from olfl_ray.learnable import Learnable
from olfl_ray.methods.group_strength import PenaltyStrength, ProximalStrength, check_sections
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import Strict, as_tuple

__all__ = ["MetaSparsity"]


class MetaSparsity(Method):
    """The strength of a group penalty is learned before and during training, by the task loss without the penalty."""

    class Config(Strict):
        """Its settings."""

        hook: Literal["proximal", "penalty"] = "proximal"
        """Where the strength enters a base step: a proximal step after the optimizer's, with exact zeros, or the loss."""
        strength: Annotated[float, Field(gt=0)] = 1e-3
        """lambda at the start."""
        layers: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
        """Patterns of the names of weights with groups; null: those of the backbone, if the model has one, else all."""

    phi = "group strength"
    before = True
    during = True
    uses = ("meta",)

    def learnable(self, setting: Setting) -> Learnable:
        """rho, with lambda = softplus(rho).

        Raises:
            SpecError: A pattern matches nothing, or the optimizer has a strength of its own.
        """
        check_sections(setting, self.config.layers)
        kind = ProximalStrength if self.config.hook == "proximal" else PenaltyStrength
        return kind(self.config.strength, self.config.layers)
