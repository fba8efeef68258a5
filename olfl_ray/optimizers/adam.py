"""Adam (Kingma and Ba, arXiv 1412.6980)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from olfl_ray.optimizers.named import NamedOptimizer
from olfl_ray.spec import NonNegative, Positive, Strict

if TYPE_CHECKING:
    from olfl_ray.engine import Optimizer

__all__ = ["AdaptiveMoments"]


class AdaptiveMoments(NamedOptimizer):
    """Adam, as `torch.optim.Adam`."""

    decoupled: ClassVar[bool] = False
    """Whether weight decay acts on the parameters, not on the gradient."""

    class Config(Strict):
        """Its settings."""

        lr: NonNegative = 1e-3
        """Learning rate alpha."""
        beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
        """Decay of the first moment."""
        beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
        """Decay of the second moment."""
        eps: Positive = 1e-8
        """Added to the root of the second moment."""
        weight_decay: NonNegative = 0.0
        """L2 penalty added to the gradient."""

    config: Config

    def build(self, clip_norm: float | None) -> Optimizer:
        from olfl_ray.engine import Adam

        own = self.config
        return Adam(
            beta1=own.beta1,
            beta2=own.beta2,
            eps=own.eps,
            weight_decay=own.weight_decay,
            decoupled=self.decoupled,
            clip_norm=clip_norm,
        )
