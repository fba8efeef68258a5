"""Poly-1 loss -log p + epsilon (1 - p) (Leng et al. 2022)."""

# B batch, C classes

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.methods.fixed_loss import FixedLoss
from olfl_ray.spec import Strict

__all__ = ["Poly1"]


class Poly1(FixedLoss):
    """Ordinary training on the Poly-1 loss -log p + epsilon (1 - p)."""

    class Config(Strict):
        """Its settings."""

        epsilon: Annotated[float, Field(ge=-1)] = 2.0
        """Added to the weight of the cross-entropy's first term in 1 - p; 0 is the cross-entropy."""

    def loss(self, logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        """The mean of -log p + epsilon (1 - p), with p the target's probability."""
        loss_B = F.cross_entropy(logits_BC, targets_B, reduction="none")
        mean: Tensor = (loss_B - self.config.epsilon * torch.expm1(-loss_B)).mean()
        return mean
