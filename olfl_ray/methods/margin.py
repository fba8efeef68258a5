"""Ordinary training on DOSA's margin loss, the margins trained with theta (arXiv 2402.04596)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from olfl_ray.losses import TaskLoss
from olfl_ray.methods.margin_settings import MarginSettings, margin_loss_of
from olfl_ray.methods.method import Method, Setting

__all__ = ["Margin"]


class Margin(Method):
    """Theta is trained on DOSA's margin loss, and with it a margin for each label."""

    class Config(MarginSettings):
        """Its settings."""

        margins: Literal["trained", "fixed"] = "trained"
        """trained: with theta, by the gradient of the same loss | fixed: they keep their initial value."""
        lr_factor: Annotated[float, Field(gt=0)] = 1.0
        """Factor on the base learning rate for the margins, if they are trained."""

    phi = "nothing"

    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        """The margin loss.

        Raises:
            SpecError: The task has no targets 0 and 1.
        """
        loss = margin_loss_of(setting, self.config, lr_factor=self.config.lr_factor)
        return loss.requires_grad_(self.config.margins == "trained")
