"""Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

from __future__ import annotations

from typing import ClassVar

from olfl_ray.optimizers.adam import AdaptiveMoments
from olfl_ray.spec import NonNegative

__all__ = ["DecoupledDecay"]


class DecoupledDecay(AdaptiveMoments):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`."""

    decoupled: ClassVar[bool] = True

    class Config(AdaptiveMoments.Config):
        """Its settings."""

        weight_decay: NonNegative = 0.01
        """Decoupled weight decay, times the learning rate."""

    config: Config
