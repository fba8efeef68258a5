"""Task losses L_T: the meta-objective, and what the baseline trains on."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
        return load_builder(name, "task.loss")
    wanted = "cross_entropy" if kind == "classification" else "squared_error"
    if name not in ("auto", wanted):
        raise SpecError("task.loss", f"{name} does not fit a {kind} data set; use {wanted} or auto")
    if wanted == "cross_entropy":
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if label_smoothing > 0:
        raise SpecError("task.label_smoothing", f"must be 0 for regression, but it is {label_smoothing}; remove it")
    return F.mse_loss
