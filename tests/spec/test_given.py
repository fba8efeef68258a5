"""A spec from Python: settings and mappings give what YAML gives, and builders that no other process finds are refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.misbehaving import Misbehaving, build

from olfl_ray.errors import SpecError
from olfl_ray.plugins import name_of_builder
from olfl_ray.spec import (
    ArmSpec,
    LearnerSpec,
    MetricSpec,
    OptimizerSpec,
    Parameter,
    SearchSpec,
    TaskSpec,
    parse_fields,
    parse_spec,
)

YAML = b"""
name: s
task: {dataset: digits, model: {name: mlp, hidden: [8]}}
learner: {steps: 20, optimizer: {name: sgd, lr: 0.5}}
search: {metric: selection/accuracy, parameters: {learner.optimizer.lr: {min: 0.01, max: 1.0}}}
arms: {a: {trials: 2, set: {learner.method: baseline}}}
"""


def given(**changes: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "task": {"dataset": "digits"},
        "search": {"parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 1.0}}},
        **changes,
    }


def test_settings_and_mappings_give_what_yaml_gives() -> None:
    spec = parse_fields(
        {
            "name": "s",
            "task": TaskSpec(dataset="digits", model={"name": "mlp", "hidden": (8,)}),  # type: ignore[arg-type]
            "learner": LearnerSpec(steps=20, optimizer=OptimizerSpec(lr=np.float64(0.5))),  # type: ignore[arg-type]
            "search": SearchSpec(
                metric="selection/accuracy", parameters={"learner.optimizer.lr": Parameter(min=0.01, max=1.0)}
            ),
            "arms": {"a": ArmSpec(trials=2, set={"learner.method": "baseline"})},
        }
    )
    assert spec == parse_spec(YAML)
    assert spec.search.goal == "maximize"  # the metric's own, as in YAML


def test_a_numpy_number_and_a_path_are_plain() -> None:
    spec = parse_fields(given(learner={"steps": np.int64(7)}, storage=Path("/somewhere")))
    assert (spec.learner.steps, spec.storage.url) == (7, "/somewhere")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"task": {"dataset": build}}, lambda spec: spec.task.dataset.name),
        ({"task": {"dataset": {"name": build, "how": "x"}}}, lambda spec: spec.task.dataset.name),
        ({"task": TaskSpec(dataset=build)}, lambda spec: spec.task.dataset.name),  # type: ignore[arg-type]
        ({"task": {"dataset": "digits", "model": build}}, lambda spec: spec.task.model.name),
        ({"task": {"dataset": "digits", "loss": build}}, lambda spec: spec.task.loss),
        ({"task": TaskSpec(dataset="digits", loss=build)}, lambda spec: spec.task.loss),  # type: ignore[arg-type]
        ({"task": {"dataset": "digits", "metrics": [build]}}, lambda spec: spec.task.metrics[0].name),
        (
            {"task": {"dataset": "digits", "metrics": (MetricSpec(name=build),)}},  # type: ignore[arg-type]
            lambda spec: spec.task.metrics[0].name,
        ),
        ({"learner": {"method": build}}, lambda spec: spec.learner.method),
        ({"learner": LearnerSpec(method=build)}, lambda spec: spec.learner.method),  # type: ignore[arg-type]
        ({"loss": {"name": build}}, lambda spec: spec.loss.name),
        ({"arms": {"a": {"trials": 1, "set": {"task.model": build}}}}, lambda spec: spec.arms["a"].set["task.model"]),
        (
            {"arms": {"a": {"trials": 1, "set": {"task.model": {"name": build, "how": "x"}}}}},
            lambda spec: spec.arms["a"].set["task.model"]["name"],
        ),
        ({"tracking": [build]}, lambda spec: spec.tracking[0].name),
    ],
)
def test_a_builder_is_kept_by_its_name(fields: dict[str, Any], found: Callable[[Any], str]) -> None:
    assert found(parse_fields(given(**fields))) == "support.misbehaving:build"


def test_a_class_and_a_librarys_function_have_names_too() -> None:
    from torch.nn import functional

    assert name_of_builder(Misbehaving) == "support.misbehaving:Misbehaving"
    assert name_of_builder(functional.huber_loss) == "torch.nn.functional:huber_loss"


def in_the_program() -> Any:
    """A function as if a script or a notebook's cell had defined it."""

    def made() -> None: ...

    made.__module__, made.__qualname__ = "__main__", "made"
    return made


def inner() -> Any:
    def local() -> None: ...

    return local


def replaced() -> Any:
    """A function whose module has another one under its name, as after a reload."""
    module = sys.modules["replaced"] = ModuleType("replaced")
    exec("def made(): ...", module.__dict__)
    before = module.__dict__["made"]
    exec("def made(): ...", module.__dict__)
    return before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lambda: 0, r"lambda.*top level of a module"),
        (inner, r"inside a function.*top level of a module"),
        (in_the_program, r"script or notebook.*from builders import made"),
        (replaced, r"replaced:made is not this function.*import the module again"),
        (lambda: functools.partial(build, how="x"), r"functools.partial of build.*options"),
        (lambda: Misbehaving(None, "", 0, Path()), r"a Misbehaving has no name"),  # type: ignore[arg-type]
        (lambda: Misbehaving.misbehave, r"Misbehaving.misbehave is not this function"),
    ],
)
def test_a_builder_that_no_other_process_finds_is_refused_with_the_cure(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(SpecError, match=words) as refused:
        parse_fields(given(task={"dataset": "digits", "model": make()}))
    assert refused.value.field == "task.model"
    assert "\n" not in str(refused.value)
    with pytest.raises(ValidationError, match=words):
        TaskSpec(dataset="digits", model=make())


def test_a_function_where_no_builder_belongs_is_refused() -> None:
    with pytest.raises(SpecError, match="is a function, but must be a string") as refused:
        parse_fields(given(task={"dataset": "digits", "model": {"name": "mlp", "activation": build}}))
    assert refused.value.field == "task.model.activation"


def test_an_unknown_field_is_refused_as_in_a_file() -> None:
    with pytest.raises(SpecError, match=r"learner.step.*did you mean.*steps"):
        parse_fields(given(learner={"step": 1}))
