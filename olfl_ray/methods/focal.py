"""Focal loss -(1 - p)^gamma log p (Lin et al. 2017, without their class weights)."""

# B batch, C classes

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.methods.fixed_loss import FixedLoss
from olfl_ray.spec import Strict

__all__ = ["Focal"]


class Focal(FixedLoss):
    """Ordinary training on the focal loss -(1 - p)^gamma log p."""

    class Config(Strict):
        """Its settings."""

        gamma: Annotated[float, Field(ge=0)] = 2.0
        """How much less the easy examples count; 0 is the cross-entropy."""

    def loss(self, logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        """The mean of -(1 - p)^gamma log p, with p the target's probability."""
        log_p_B = -F.cross_entropy(logits_BC, targets_B, reduction="none")
        # Below 1 the power's slope is infinite where p rounds to 1, and the term's own limit there is 0.
        other_B = (-torch.expm1(log_p_B)).clamp_min(torch.finfo(log_p_B.dtype).tiny)
        mean: Tensor = -(other_B**self.config.gamma * log_p_B).mean()
        return mean
