"""What a method for several heads requires of its task."""

from __future__ import annotations

from olfl_ray.errors import SpecError
from olfl_ray.methods.method import Setting
from olfl_ray.tasks.multitask import MultiTask

__all__ = ["several_heads"]


def several_heads(setting: Setting) -> MultiTask:
    """The task, which has heads.

    Raises:
        SpecError: It has none.
    """
    if not isinstance(setting.task, MultiTask) or not setting.task.heads:
        raise SpecError(
            "learner.method",
            f"is {setting.config.learner.method}, which weights the heads of a multi-task data set, but this one is of kind "
            f"{setting.kind}; use learner.method: baseline, or a data set with heads",
        )
    return setting.task
