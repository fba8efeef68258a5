"""Labels that arrive in blocks: each part of the training shows one block's labels, and hides all others (DOSA, 2402.04596)."""

# B batch, L labels, K blocks

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable
from olfl_ray.losses.margins import MarginLoss
from olfl_ray.methods.margin_settings import MarginSettings, margin_loss_of
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import as_tuple
from olfl_ray.tasks.label_metrics import macro_f1

__all__ = ["ArrivingLabels", "LabelBlocks"]


def _disjoint(blocks: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    labels = [label for block in blocks for label in block]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"each label must be in one block, but {twice} is in several; remove it from the others")
    return blocks


Block: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)]
Blocks: TypeAlias = Annotated[
    tuple[Block, ...], BeforeValidator(as_tuple), Field(min_length=1), AfterValidator(_disjoint)
]


class ArrivingLabels(Learnable):
    """A loss of one block's labels at a time; nothing is meta-learned.

    The base learner has an output for every label from the start. An output gets no gradient before and after its block, so for SGD
    without momentum and weight decay this is a network whose output layer widens at each block and keeps its old weights.

    Args:
        blocks: Labels of each block, in the order of their arrival.
        steps: Base steps of the training; each block has an equal share.
        margins: The margin loss; the cross-entropy of a label has its form and labels.
        loss: What theta is trained on.
    """

    step: Tensor
    shown_KL: Tensor

    def __init__(
        self,
        blocks: tuple[tuple[int, ...], ...],
        steps: int,
        margins: MarginLoss,
        loss: Literal["margin", "binary_cross_entropy"],
    ) -> None:
        super().__init__()
        self.steps, self.kind, self.margins = steps, loss, margins.requires_grad_(False)
        shown_KL = torch.zeros(len(blocks), len(margins.rho))
        for row, block in zip(shown_KL, blocks, strict=True):
            row[list(block)] = 1.0
        self.register_buffer("shown_KL", shown_KL)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def measured(self, lr: float) -> dict[str, float]:
        """The number of the last step's block, from 0."""
        return {"train/block": float((max(int(self.step), 1) - 1) * len(self.shown_KL) // self.steps)}

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The mean F1 score of each block's labels, from block 1; none for classes."""
        if not self.margins.task.labels:
            return {}
        blocks = [row.nonzero()[:, 0].tolist() for row in self.shown_KL]
        return {
            f"block_{number}_f1": macro_f1(outputs[:, block], targets[:, block])
            for number, block in enumerate(blocks, 1)
        }

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The sum over the labels of the present block, mean over the batch."""
        block = (self.step * len(self.shown_KL) // self.steps).clamp(max=len(self.shown_KL) - 1)
        self.step.add_(1)
        if self.kind == "margin":
            loss_BL = self.margins.each(outputs, targets)
        else:
            _, targets_BL = self.margins.task.pairs(outputs, targets)
            loss_BL = F.binary_cross_entropy_with_logits(outputs, targets_BL, reduction="none")
        return (loss_BL * self.shown_KL[block].to(loss_BL.dtype)).sum(-1).mean()


class LabelBlocks(Method):
    """Continual learning: labels arrive in blocks, each trained in its own part of the steps."""

    class Config(MarginSettings):
        """Its settings."""

        blocks: Blocks
        """Labels of each block, by their numbers from 0, in the order of their arrival."""
        loss: Literal["margin", "binary_cross_entropy"] = "margin"
        """Loss of the labels: margin (with fixed margins) | binary_cross_entropy."""

    phi = "nothing"

    def learnable(self, setting: Setting) -> Learnable:
        """The loss.

        Raises:
            SpecError: The task has no such labels, or fewer.
        """
        margins = margin_loss_of(setting, self.config)
        most = max(label for block in self.config.blocks for label in block)
        if most >= setting.outputs:
            raise SpecError(
                "learner.options.blocks",
                f"has label {most}, but the data set has labels 0 to {setting.outputs - 1}; change it",
            )
        if setting.config.learner.steps < len(self.config.blocks):
            raise SpecError(
                "learner.steps", f"is below the number of blocks, {len(self.config.blocks)}; raise it to that at least"
            )
        return ArrivingLabels(self.config.blocks, setting.config.learner.steps, margins, self.config.loss)
