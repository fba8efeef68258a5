"""Fixed losses that a baseline may train on instead of the cross-entropy: label smoothing, focal loss, Poly-1."""

# B batch, C classes

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses.task import task_loss
from olfl_ray.spec import FixedLoss, FocalSpec, LabelSmoothingSpec, Poly1Spec
from olfl_ray.tasks import TaskLoss, task_of

__all__ = ["fixed_loss", "focal", "poly1"]


def focal(logits_BC: Tensor, targets_B: Tensor, *, gamma: float) -> Tensor:
    """Mean of -(1 - p)^gamma log p, with p the target's probability (Lin et al. 2017, without their class weights).

    Args:
        logits_BC: Raw outputs.
        targets_B: Classes.
        gamma: How much the easy examples count less, at least 0; 0 is the cross-entropy.
    """
    log_p_B = -F.cross_entropy(logits_BC, targets_B, reduction="none")
    # Below 1 the power's slope is infinite where p rounds to 1, and the term's own limit there is 0.
    other_B = (-torch.expm1(log_p_B)).clamp_min(torch.finfo(log_p_B.dtype).tiny)
    return -(other_B**gamma * log_p_B).mean()


def poly1(logits_BC: Tensor, targets_B: Tensor, *, epsilon: float) -> Tensor:
    """Mean of -log p + epsilon (1 - p), with p the target's probability (Leng et al. 2022).

    Args:
        logits_BC: Raw outputs.
        targets_B: Classes.
        epsilon: What is added to the weight of the cross-entropy's first term in 1 - p, at least -1; 0 is the cross-entropy.
    """
    loss_B = F.cross_entropy(logits_BC, targets_B, reduction="none")
    return (loss_B - epsilon * torch.expm1(-loss_B)).mean()


def fixed_loss(spec: FixedLoss, task: str, kind: str) -> TaskLoss:
    """The function (outputs_BC, targets) -> scalar that trains theta in a baseline trial.

    Args:
        spec: Its name and settings; `task` is the task loss itself.
        task: Name of the task loss.
        kind: The data set's kind.

    Raises:
        SpecError: It replaces a cross-entropy, but the task loss is another.
    """
    if spec.name == "task":
        return task_loss(task, kind)
    if "cross_entropy" not in task_of(kind).losses or task not in ("auto", "cross_entropy"):
        raise SpecError(
            "learner.fixed_loss",
            f"{spec.name} replaces the cross-entropy, but the task loss is {task} on a {kind} data set; "
            "use fixed_loss: task",
        )
    return _built(spec)


def _built(spec: LabelSmoothingSpec | FocalSpec | Poly1Spec) -> TaskLoss:
    if isinstance(spec, LabelSmoothingSpec):
        return partial(F.cross_entropy, label_smoothing=spec.smoothing)
    if isinstance(spec, FocalSpec):
        return partial(focal, gamma=spec.gamma)
    return partial(poly1, epsilon=spec.epsilon)
