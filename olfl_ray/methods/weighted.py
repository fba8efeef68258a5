"""Ordinary training on a cross-entropy with a weight for each class, or for the positive examples of each label."""

# B batch, C classes or labels

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses import TaskLoss
from olfl_ray.methods.method import Method, Setting
from olfl_ray.spec import Strict, as_tuple
from olfl_ray.tasks import task_of

__all__ = ["Weighted"]


class Weighted(Method):
    """Ordinary training on the cross-entropy with weights. The task loss that is reported has none."""

    class Config(Strict):
        """Its settings."""

        weights: Annotated[
            tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
        ] = (1.0,)
        """Weight of each class, or of the positive examples of each label; one number: the same for all."""

    phi = "nothing"

    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        """The weighted loss.

        Raises:
            SpecError: The task has neither classes nor labels, the task loss is another, or weights are missing.
        """
        task, weights = task_of(setting.kind), self.config.weights
        if not (task.classes or task.labels) or task_loss is not next(iter(task.losses.values())):
            raise SpecError(
                "learner.method",
                f"is {setting.config.learner.method}, which weights a cross-entropy, but the task loss is "
                f"{setting.config.task.loss} on a {setting.kind} data set; use learner.method: baseline",
            )
        if len(weights) not in (1, setting.outputs):
            raise SpecError(
                "learner.options.weights",
                f"has {len(weights)} weights, but the data set has {setting.outputs} {'labels' if task.labels else 'classes'}; "
                "give one for each, or one for all",
            )
        weight_C = torch.tensor(weights).expand(setting.outputs)

        def placed(logits_BC: Tensor) -> Tensor:
            return weight_C.to(logits_BC.device, logits_BC.dtype)

        def of_labels(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, pos_weight=placed(logits_BC))

        def of_classes(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
            return F.cross_entropy(logits_BC, targets_B, weight=placed(logits_BC))

        return of_labels if task.labels else of_classes
