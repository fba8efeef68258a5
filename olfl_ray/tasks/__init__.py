"""Tasks: what is predicted, and the metrics of a prediction. Each task is a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from olfl_ray.registry import Registry
from olfl_ray.tasks.heads import Head
from olfl_ray.tasks.measured import metrics_of
from olfl_ray.tasks.task import Goal, Metric, Task, TaskLoss

__all__ = ["TASKS", "Goal", "Head", "Metric", "Task", "TaskLoss", "goal_of", "metrics_of", "task_of"]

TASKS = Registry("olfl_ray.tasks", Task)  # type: ignore[type-abstract]
"""Tasks by name; a user's own is `package.module:Class`."""


def task_of(
    kind: str, field: str = "task.dataset", *, options: Mapping[str, Any] | None = None, heads: Sequence[Head] = ()
) -> Task:
    """The task of a data set or of a learned loss.

    Args:
        kind: Its name.
        field: Field of the spec that names it, for messages.
        options: Its settings, `task.options`.
        heads: Of a data set with several tasks.

    Raises:
        SpecError: There is none, or a setting breaks one of its rules.
    """
    found = TASKS.find(kind, field)
    if not options and not heads:
        return found()
    from olfl_ray.spec import checked_options  # the engine needs torch alone

    return found(checked_options(found.Config, options or {}, "task.options"), heads)


def goal_of(metric: str) -> Goal:
    """The goal of a built-in task's metric; of a metric that none of them has, minimize.

    Args:
        metric: Its name, without the split. That of a single output is `METRIC_OUTPUT`, that of a head `HEAD_METRIC`.
    """
    tasks = [TASKS.find(name, "task.dataset")() for name in TASKS.names()]
    while metric:
        output = metric.partition("_")[2]
        for task in tasks:
            for found in (*task.metrics, *task.metrics_of_outputs([output] if output else []), *task.conditional):
                if found.name == metric:
                    return found.goal
        metric = output  # without a head's name, or its first part
    return "minimize"
