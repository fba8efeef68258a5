"""A learned loss per class: the cross-entropy with a learned weight and temperature for each class."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.learnable import Learnable
from olfl_ray.methods import Method, Setting


class ClassLoss(Learnable):
    """phi: the logarithms of a weight and a temperature for each class, both 1 at first."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.log_weight, self.log_temperature = (nn.Parameter(torch.zeros(classes)) for _ in range(2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch."""
        scaled = outputs * self.log_temperature.exp()[targets][:, None]
        return (self.log_weight.exp()[targets] * F.cross_entropy(scaled, targets, reduction="none")).mean()

    def measured(self, lr: float) -> dict[str, float]:
        """Recorded at each evaluation."""
        return {"phi/largest_weight": self.log_weight.exp().max().item()}


class PerClass(Method):
    """Learned before training (Algorithm 1) and during it (Algorithm 2)."""

    phi = "class loss"
    before = True
    during = True
    uses = ("meta",)

    def learnable(self, setting: Setting) -> Learnable:
        return ClassLoss(setting.outputs)
