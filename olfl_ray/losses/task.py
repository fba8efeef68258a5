"""Task losses L_T: the meta-objective, what is evaluated, and what a baseline trains on where it has no fixed loss."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses.learned import Kind
from olfl_ray.losses.roles import check_order
from olfl_ray.plugins import load_builder

__all__ = ["TaskLoss", "task_loss"]

TaskLoss = Callable[[Tensor, Tensor], Tensor]


def task_loss(name: str, kind: Kind) -> TaskLoss:
    """The function (outputs_BC, targets) -> scalar called `name`.

    Args:
        name: auto, cross_entropy, squared_error, or `package.module:function`.
        kind: The data set's kind; a task loss of the other kind is refused.

    Raises:
        SpecError: The name does not fit the data set.
    """
    if ":" in name:
        own = load_builder(name, "task.loss", (Tensor,))
        check_order(own, name, "task.loss")
        return own
    wanted = "cross_entropy" if kind == "classification" else "squared_error"
    if name not in ("auto", wanted):
        raise SpecError("task.loss", f"{name} does not fit a {kind} data set; use {wanted} or auto")
    return F.cross_entropy if kind == "classification" else F.mse_loss
