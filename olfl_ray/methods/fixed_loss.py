"""Ordinary training on a fixed loss in place of the cross-entropy."""

# B batch, C classes

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.losses import TaskLoss
from olfl_ray.methods.method import Method, Setting

__all__ = ["FixedLoss"]


class FixedLoss(Method, ABC):
    """Nothing is learned besides theta, which is trained on a loss that a subclass gives, in place of the cross-entropy."""

    phi = "nothing"

    @abstractmethod
    def loss(self, logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        """The mean over the batch, a scalar.

        Args:
            logits_BC: Raw outputs.
            targets_B: Classes.
        """

    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        """The loss that a subclass gives.

        Raises:
            SpecError: The task loss is no cross-entropy.
        """
        if task_loss is not setting.task.losses.get("cross_entropy"):
            raise SpecError(
                "learner.method",
                f"is {setting.config.learner.method}, which replaces the cross-entropy, but the task loss is "
                f"{setting.config.task.loss} on a {setting.kind} data set; use learner.method: baseline",
            )
        return self.loss
