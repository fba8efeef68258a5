"""The weights of the heads' losses, meta-learned during training: base loss sum of w_h L_h, w = H softmax(a)."""

# H heads

from __future__ import annotations

import torch
from torch import Tensor, nn

from olfl_ray.learnable import Learnable
from olfl_ray.methods.heads import several_heads
from olfl_ray.methods.method import OF_ADAPTATION, Method, Setting
from olfl_ray.tasks.multitask import MultiTask

__all__ = ["HeadWeights", "LearnedWeights"]


class HeadWeights(Learnable):
    """phi is a_H; the weights w = H softmax(a) have the mean 1.

    Args:
        task: The task.
    """

    def __init__(self, task: MultiTask) -> None:
        super().__init__()
        self.task = task
        self.a_H = nn.Parameter(torch.zeros(len(task.heads)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted losses of the heads that the batch shows."""
        found, shown_H = self.task.head_losses(outputs, targets)
        return (shown_H * self._weights() * torch.stack(found)).sum()

    def measured(self, lr: float) -> dict[str, float]:
        """The weight of each head."""
        weights = self._weights().detach().tolist()
        return {f"train/weight_{head.name}": value for head, value in zip(self.task.heads, weights, strict=True)}

    def _weights(self) -> Tensor:
        return len(self.task.heads) * torch.softmax(self.a_H, 0)


class LearnedWeights(Method):
    """The heads' weights are adapted after each base step, on the task loss of the meta batch."""

    phi = "head_weights"
    during = True
    uses = OF_ADAPTATION

    def learnable(self, setting: Setting) -> Learnable:
        """The weights, 1 at the start."""
        return HeadWeights(several_heads(setting))
