"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from olfl_ray.optimizers.named import NamedOptimizer
from olfl_ray.spec import NonNegative, Strict

if TYPE_CHECKING:
    from olfl_ray.engine import Optimizer

__all__ = ["StochasticGradientDescent"]


class StochasticGradientDescent(NamedOptimizer):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    class Config(Strict):
        """Its settings."""

        lr: NonNegative = 0.01
        """Learning rate alpha."""
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Momentum."""
        nesterov: bool = False
        """Nesterov momentum."""
        weight_decay: NonNegative = 0.0
        """L2 penalty added to the gradient."""

        @model_validator(mode="after")
        def _nesterov_needs_momentum(self) -> StochasticGradientDescent.Config:
            if self.nesterov and self.momentum == 0:
                raise ValueError(
                    "nesterov=true needs `momentum > 0`, but momentum=0.0; set a momentum or nesterov: false"
                )
            return self

    config: Config

    def build(self, clip_norm: float | None) -> Optimizer:
        from olfl_ray.engine import Sgd

        own = self.config
        return Sgd(momentum=own.momentum, nesterov=own.nesterov, weight_decay=own.weight_decay, clip_norm=clip_norm)
