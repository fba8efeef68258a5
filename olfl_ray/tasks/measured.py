"""The metrics of a split: the task's, then the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.plugins import load_builder
from olfl_ray.tasks.task import Metric, Task

if TYPE_CHECKING:
    from olfl_ray.spec import MetricSpec

__all__ = ["metrics_of"]


def metrics_of(task: Task, own: Sequence[MetricSpec], outputs: Sequence[str] = ()) -> list[Metric]:
    """The metrics of a task, and those that a spec adds.

    Args:
        task: The task.
        own: Those of the spec.
        outputs: Name of each output, for the task's metrics of single outputs.

    Raises:
        SpecError: A function can't be imported, or two metrics have one name.
    """
    found = [*task.metrics, *task.metrics_of_outputs(outputs)]
    for spec in own:
        metric = _users(spec)
        if metric.name == "task_loss" or metric.name in {known.name for known in found}:
            raise SpecError(
                "task.metrics", f"has two metrics called {metric.name!r}; rename the function of {spec.name}"
            )
        found.append(metric)
    return found


def _users(spec: MetricSpec) -> Metric:
    function = load_builder(spec.name, "task.metrics", (float, Tensor))

    def compute(outputs_NC: Tensor, targets: Tensor, scale: Tensor | None) -> float:
        try:
            value = float(function(outputs_NC, targets))
        except (Exception, SystemExit) as error:
            raise SpecError(
                "task.metrics", f"{spec.name!r} raised {type(error).__name__}: {error}; correct the function"
            ) from error
        return value if math.isfinite(value) else math.nan

    name = spec.name.rpartition(":")[2]
    return Metric(name=name, goal=spec.goal, unit=spec.unit, meaning=spec.name, compute=compute)
