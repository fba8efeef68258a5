"""SGD, then the proximal step of a group penalty, in closed form (docs/sparsity.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from olfl_ray.optimizers.sgd import StochasticGradientDescent
from olfl_ray.spec import NonNegative, as_tuple

if TYPE_CHECKING:
    from olfl_ray.engine import Optimizer

__all__ = ["ProximalGradientDescent"]


class ProximalGradientDescent(StochasticGradientDescent):
    """SGD, then the proximal step of a group penalty on input channels, which makes exact zeros."""

    class Config(StochasticGradientDescent.Config):
        """Its settings."""

        strength: NonNegative = 1e-3
        """lambda, the strength of the penalty; 0 is sgd, bit for bit."""
        layers: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
        """Patterns of the names of weights with groups; null: those of the backbone, if the model has one, else all."""

    config: Config

    def build(self, clip_norm: float | None) -> Optimizer:
        from olfl_ray.engine import ProxSgd

        return ProxSgd(**self.config.model_dump(exclude={"lr"}), clip_norm=clip_norm)
