"""The goal of a study follows from its metric, so that a spec with and without it is the same study."""

from __future__ import annotations

from typing import Any

import pytest

from olfl_ray.spec import SearchSpec, StudySpec
from olfl_ray.tasks import TASKS

OWN = [{"name": "mine:accuracy", "goal": "minimize"}, {"name": "mine:gain", "goal": "maximize"}, "mine:cost"]


def study(metric: str | None, goal: str | None = None, metrics: Any = ()) -> StudySpec:
    search = {"metric": metric and f"selection/{metric}", "goal": goal}
    given = {key: value for key, value in search.items() if value is not None}
    return StudySpec.model_validate(
        {
            "name": "x",
            "task": {"dataset": "digits", "metrics": list(metrics)},
            "search": {**given, "parameters": {"learner.optimizer.lr": {"min": 0.1, "max": 1.0}}},
        }
    )


@pytest.mark.parametrize("kind", TASKS.names())
def test_the_goal_of_each_task_s_metric_is_known(kind: str) -> None:
    task = TASKS.find(kind, "")()
    for metric in (*task.metrics, *task.metrics_of_outputs(["red", "dark_blue"])):
        assert study(metric.name).search.goal == metric.goal
        assert study(metric.name).digest == study(metric.name, metric.goal).digest
    assert study(None).search.goal == study("task_loss").search.goal == "minimize"


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("digit_accuracy", "maximize"),
        ("at_least_5_error", "minimize"),
        ("genre_f1_happy", "maximize"),
        ("ink_loss", "minimize"),
        ("delta_m", "maximize"),
    ],
)
def test_the_goal_of_a_heads_metric_is_its_tasks(metric: str, goal: str) -> None:
    assert study(metric).search.goal == goal


@pytest.mark.parametrize(("metric", "goal"), [("accuracy", "minimize"), ("gain", "maximize"), ("cost", "minimize")])
def test_a_users_metric_carries_its_goal(metric: str, goal: str) -> None:
    found = study(metric, metrics=OWN)
    assert found.search.goal == goal
    again = StudySpec.model_validate({**found.model_dump(by_alias=True), "task": found.task, "search": found.search})
    assert again.digest == found.digest == study(metric, goal, OWN).digest


def test_a_goal_that_is_given_stays() -> None:
    assert study("accuracy", "minimize").search.goal == "minimize"
    part = SearchSpec(metric="selection/r2", parameters={})
    assert StudySpec(name="x", task=study(None).task, search=part).search.goal == "maximize"
