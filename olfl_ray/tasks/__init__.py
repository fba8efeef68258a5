"""Tasks: what is predicted, and the metrics of a prediction. Each task is a file."""

from olfl_ray.registry import Registry
from olfl_ray.tasks.measured import metrics_of
from olfl_ray.tasks.task import Goal, Metric, Task

__all__ = ["TASKS", "Goal", "Metric", "Task", "metrics_of"]

TASKS = Registry("olfl_ray.tasks", Task)  # type: ignore[type-abstract]
"""Tasks by name; a user's own is `package.module:Class`."""
