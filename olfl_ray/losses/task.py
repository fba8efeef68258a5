"""Task losses L_T: the meta-objective, and what the baseline trains on."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses.learned import Kind
from olfl_ray.plugins import load_builder

__all__ = ["TaskLoss", "task_loss"]

TaskLoss = Callable[[Tensor, Tensor], Tensor]


def task_loss(name: str, kind: Kind, *, label_smoothing: float = 0.0) -> TaskLoss:
    """The function (outputs_BC, targets) -> scalar called `name`.

    Args:
        name: auto, cross_entropy, squared_error, or `package.module:function`.
        kind: The data set's kind; a task loss of the other kind is refused.
        label_smoothing: Mass that the targets of a cross-entropy spread over all classes.

    Raises:
        SpecError: The name does not fit the data set.
    """
    if ":" in name:
        function = load_builder(name, "task.loss")
        _probe(name, function, kind)
        return function
    wanted = "cross_entropy" if kind == "classification" else "squared_error"
    if name not in ("auto", wanted):
        raise SpecError("task.loss", f"{name} does not fit a {kind} data set; use {wanted} or auto")
    if wanted == "cross_entropy":
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if label_smoothing > 0:
        raise SpecError("task.label_smoothing", f"must be 0 for regression, but it is {label_smoothing}; remove it")
    return F.mse_loss


def _probe(name: str, function: TaskLoss, kind: Kind) -> None:
    outputs_BC = torch.zeros(4, 3, requires_grad=True)
    targets = torch.zeros(4, dtype=torch.int64) if kind == "classification" else torch.ones(4, 3)
    try:
        value = function(outputs_BC, targets)
    except Exception as error:
        raise SpecError(
            "task.loss", f"{name!r} can't be called as (outputs, targets): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0 or not value.requires_grad:
        raise SpecError("task.loss", f"{name!r} must give a scalar tensor that depends on the outputs; correct it")
