"""Learned losses of a multi-task problem: one loss for all heads of a kind, M = sum over heads of w_h M_kind(h)."""

# B batch, H heads, C_h outputs of a head, C outputs of all heads

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from olfl_ray.learnable import Learnable
from olfl_ray.losses.learned_loss import LearnedLoss

if TYPE_CHECKING:
    from olfl_ray.tasks.multitask import MultiTask

__all__ = ["HeadLosses"]


class HeadLosses(Learnable):
    """A learned loss per kind of task, which all heads of that kind share; the heads' weights are those of the task loss.

    Args:
        losses: A learned loss for each kind of the heads.
        task: The task.
    """

    def __init__(self, losses: Mapping[str, LearnedLoss], task: MultiTask) -> None:
        super().__init__()
        self.task, self.kinds = task, list(losses)
        self.losses = nn.ModuleList(losses.values())

    @property
    def seen(self) -> Tensor:
        """What each of the losses has seen, one row for each."""
        return torch.stack([loss.seen for loss in self._each()])

    @seen.setter
    def seen(self, rows: Tensor) -> None:
        for loss, row in zip(self._each(), rows, strict=True):
            loss.seen = row.clone()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum over the heads that the batch shows.

        Args:
            outputs: Raw outputs (B, C) of all heads.
            targets: Their targets (B, C).
        """
        by_kind = dict(zip(self.kinds, self.losses, strict=True))
        found, shown_H = self.task.each([by_kind[head.kind] for head in self.task.heads], outputs, targets)
        return self.task.weighted(found, shown_H)

    def surface(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """The learned loss on a grid, if it is only one."""
        return self._each()[0].surface() if len(self.kinds) == 1 else None

    def _each(self) -> list[LearnedLoss]:
        return [loss for loss in self.losses if isinstance(loss, LearnedLoss)]
