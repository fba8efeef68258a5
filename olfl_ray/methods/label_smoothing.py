"""Cross-entropy against targets that give some of their mass to all classes (Szegedy et al. 2016)."""

# B batch, C classes

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.methods.fixed_loss import FixedLoss
from olfl_ray.spec import Strict

__all__ = ["LabelSmoothing"]


class LabelSmoothing(FixedLoss):
    """Ordinary training on the cross-entropy with label smoothing."""

    class Config(Strict):
        """Its settings."""

        smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
        """Mass that is spread over all classes; 0 is the cross-entropy."""

    def loss(self, logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        """The mean of -sum_c q_c log p_c, with q = (1 - smoothing) onehot + smoothing / C."""
        return F.cross_entropy(logits_BC, targets_B, label_smoothing=self.config.smoothing)
