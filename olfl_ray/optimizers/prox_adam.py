"""Adam or AdamW, then the proximal step of a group penalty in Adam's metric (docs/sparsity.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from olfl_ray.optimizers.adam import AdaptiveMoments
from olfl_ray.spec import NonNegative, as_tuple

if TYPE_CHECKING:
    from olfl_ray.engine import Optimizer

__all__ = ["ProximalMoments"]


class ProximalMoments(AdaptiveMoments):
    """Adam, then the proximal step of a group penalty on input channels in Adam's metric, which makes exact zeros."""

    class Config(AdaptiveMoments.Config):
        """Its settings."""

        decoupled: bool = False
        """Whether weight decay acts on the parameters, as in AdamW; the proximal step comes after it."""
        strength: NonNegative = 1e-3
        """lambda, the strength of the penalty; 0 is adam or adamw, bit for bit."""
        layers: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
        """Patterns of the names of weights with groups; null: those of the backbone, if the model has one, else all."""

    config: Config

    def build(self, clip_norm: float | None) -> Optimizer:
        from olfl_ray.engine import ProxAdam

        return ProxAdam(**self.config.model_dump(exclude={"lr"}), clip_norm=clip_norm)
