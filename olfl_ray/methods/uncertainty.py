"""Uncertainty weighting of the heads' losses, sum of exp(-s_h) L_h + s_h, s trained with theta (Kendall et al. 2018)."""

# H heads

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from olfl_ray.losses import TaskLoss
from olfl_ray.methods.heads import several_heads
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import Strict
from olfl_ray.tasks.multitask import MultiTask

__all__ = ["Uncertainty", "UncertaintyLoss"]


class UncertaintyLoss(nn.Module):
    """Sum of exp(-s_h) L_h + s_h over the heads that the batch shows; s_H is trained with theta, as all parameters of a base loss.

    Args:
        task: The task.
        initial: s_h at the start.
        lr_factor: Factor on the base learning rate for s.
    """

    def __init__(self, task: MultiTask, initial: float = 0.0, lr_factor: float = 1.0) -> None:
        super().__init__()
        self.task, self.lr_factor = task, lr_factor
        self.s_H = nn.Parameter(torch.full((len(task.heads),), float(initial)))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A scalar."""
        found, shown_H = self.task.head_losses(outputs, targets)
        return (shown_H * (torch.exp(-self.s_H) * torch.stack(found) + self.s_H)).sum()

    def measured(self) -> dict[str, float]:
        """The weight exp(-s_h) of each head."""
        weights = torch.exp(-self.s_H.detach()).tolist()
        return {f"train/weight_{head.name}": value for head, value in zip(self.task.heads, weights, strict=True)}


class Uncertainty(Method):
    """Ordinary training with the heads' losses weighted by trained uncertainties; evaluation keeps the task loss."""

    class Config(Strict):
        """Its settings."""

        initial: float = 0.0
        """s_h at the start; the weight of a loss is exp(-s_h)."""
        lr_factor: Annotated[float, Field(gt=0)] = 1.0
        """Factor on the base learning rate for s; s has no weight decay."""

    phi = "nothing"

    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        """The weighted losses."""
        return UncertaintyLoss(several_heads(setting), self.config.initial, self.config.lr_factor)
