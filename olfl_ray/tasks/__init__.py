"""Tasks: what is predicted, and the metrics of a prediction. Each task is a file."""

from olfl_ray.registry import Registry
from olfl_ray.tasks.measured import metrics_of
from olfl_ray.tasks.task import Goal, Metric, Task, TaskLoss

__all__ = ["TASKS", "Goal", "Metric", "Task", "TaskLoss", "metrics_of", "task_of"]

TASKS = Registry("olfl_ray.tasks", Task)  # type: ignore[type-abstract]
"""Tasks by name; a user's own is `package.module:Class`."""


def task_of(kind: str, field: str = "task.dataset") -> Task:
    """The task of a data set or of a learned loss.

    Args:
        kind: Its name.
        field: Field of the spec that names it, for messages.

    Raises:
        SpecError: There is none.
    """
    return TASKS.find(kind, field)()
