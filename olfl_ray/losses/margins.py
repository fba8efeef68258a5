"""The margin losses of DOSA (arXiv 2402.04596): sum_k exp(-u_k) u_k^2, with u_k the distance of a score to its label's margin."""

# B batch, L labels

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from olfl_ray.tasks import Task

__all__ = ["HIGHEST", "Importance", "MarginLoss", "margin_loss"]

Importance: TypeAlias = Literal["attached", "detached", "none"]
"""The factor exp(-u) is differentiated | is a constant of the gradient | is left out."""
HIGHEST = 2.0
"""Supremum of the scores y (y+ - y-) of two outputs in (-1, 1), and of the margins."""


def margin_loss(u: Tensor, importance: Importance) -> Tensor:
    """exp(-u) u^2, elementwise; its derivative is exp(-u) u (2 - u), or 2 u exp(-u) with a detached factor.

    That derivative has the primitive 2 - 2 (u + 1) exp(-u). It is what is differentiated, so that a meta-gradient through a step on
    the detached loss is exact; a factor without any derivative would be a constant there, which it is not.

    Args:
        u: zeta - b, any shape.
        importance: What becomes of exp(-u); without it, this is u^2.
    """
    if importance == "none":
        return u * u
    factor = torch.exp(-u)
    if importance == "attached":
        return factor * u * u
    primitive = -2 * (u + 1) * factor
    return (factor * u * u).detach() + (primitive - primitive.detach())


class MarginLoss(nn.Module):
    """The margin loss with a margin for each label, b = lowest + (2 - lowest) sigmoid(rho); rho is its only parameter.

    If margins could become 0, a network whose outputs are always 0 would have the smallest loss. As b > lowest, its loss is at
    least lowest^2 per label, and its outputs have a gradient. A margin above 2 would be out of reach for outputs in (-2, 2).

    Args:
        task: The task; its learned losses receive targets 0 and 1.
        labels: L.
        initial: Initial margin of each label, between `lowest` and 2.
        lowest: Infimum of the margins, above 0.
        importance: As of `margin_loss`.
        reduction: Over the labels.
        lr_factor: Factor on the base learning rate for rho, where it is trained with theta.
    """

    def __init__(
        self,
        task: Task,
        labels: int,
        *,
        initial: float = 1.0,
        lowest: float = 0.5,
        importance: Importance = "attached",
        reduction: Literal["sum", "mean"] = "sum",
        lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        share = (initial - lowest) / (HIGHEST - lowest)
        self.rho = nn.Parameter(torch.full((labels,), math.log(share / (1 - share))))
        self.task, self.lowest, self.importance, self.reduction = task, lowest, importance, reduction
        self.lr_factor = lr_factor

    def margins(self) -> Tensor:
        """b (L,)."""
        return self.lowest + (HIGHEST - self.lowest) * torch.sigmoid(self.rho)

    def each(self, outputs_BL: Tensor, targets: Tensor) -> Tensor:
        """The margin loss (B, L) of each label.

        Args:
            outputs_BL: y+ - y-, or other scores that are above 0 where a label is predicted.
            targets: In the form of the task.
        """
        _, targets_BL = self.task.pairs(outputs_BL, targets)
        zeta_BL = (2 * targets_BL - 1) * outputs_BL
        margins_L = self.margins().to(outputs_BL.device)  # margins that are not trained stay where they were made
        return margin_loss(zeta_BL - margins_L, self.importance)

    def forward(self, outputs_BL: Tensor, targets: Tensor) -> Tensor:
        """The sum or mean of `each` over the labels, mean over the batch."""
        loss_BL = self.each(outputs_BL, targets)
        loss_B = loss_BL.sum(-1) if self.reduction == "sum" else loss_BL.mean(-1)
        return loss_B.mean()

    @torch.no_grad()
    def measured(self) -> dict[str, float]:
        """The margin of each label, by its number."""
        return {f"margin/{label}": value for label, value in enumerate(self.margins().tolist())}
