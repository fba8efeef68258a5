"""Task losses L_T: the meta-objective, what is evaluated, and what a baseline trains on where it has no fixed loss."""

# B batch, C outputs

from __future__ import annotations

from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.losses.roles import check_order
from olfl_ray.plugins import load_builder, nearest
from olfl_ray.tasks import Task, TaskLoss, task_of

__all__ = ["TaskLoss", "task_loss"]


def task_loss(name: str, kind: str | Task) -> TaskLoss:
    """The function (outputs_BC, targets) -> scalar called `name`.

    Args:
        name: auto, one of the task's losses, or `package.module:function`.
        kind: The data set's task, or its name; a task loss of another is refused.

    Raises:
        SpecError: The name does not fit the data set.
    """
    if ":" in name:
        own = load_builder(name, "task.loss", (Tensor,))
        check_order(own, name, "task.loss")
        return own
    task = task_of(kind) if isinstance(kind, str) else kind
    losses = task.losses
    if name == "auto":
        return next(iter(losses.values()))
    if name not in losses:
        said = kind if isinstance(kind, str) else type(kind).__name__.lower()
        raise SpecError(
            "task.loss",
            f"{name} does not fit a {said} data set{nearest(name, [*losses, 'auto'])}; use {', '.join(losses)}, auto, or "
            "package.module:function",
        )
    return losses[name]
