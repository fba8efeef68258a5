"""Optimizers, schedules and pruners: a file of the part's package is a new one, and `spec` has no list of them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.engine import Sgd
from olfl_ray.errors import SpecError
from olfl_ray.optimizers import OPTIMIZERS
from olfl_ray.pruners import PRUNERS, pruner_of
from olfl_ray.registry import Registry
from olfl_ray.schedules import SCHEDULES
from olfl_ray.spec import LearnerSpec, OptimizerSpec, parse_fields, parse_spec, trial_config
from olfl_ray.study.reference import complete_yaml, schema
from olfl_ray.trial.base import base_optimizer, schedule_of

SPEC = """\
name: s
task: {dataset: digits}
learner:
  optimizer: {name: sgd, lr: 0.5, momentum: 0.9}
  schedule: cosine
search: {pruner: median, parameters: {learner.optimizer.lr: {min: 0.01, max: 1.0}}}
arms: {a: {trials: 2}}
"""
FILES = {
    "optimizers": """
from olfl_ray.optimizers import NamedOptimizer
from olfl_ray.spec import Strict

class Decaying(NamedOptimizer):
    '''One of somebody's.'''

    class Config(Strict):
        lr: float = 0.25
        strength: float = 0.125

    def build(self, clip_norm):
        from olfl_ray.engine import Sgd

        return Sgd(weight_decay=self.config.strength, clip_norm=clip_norm)
""",
    "schedules": """
from olfl_ray.schedules import Schedule
from olfl_ray.spec import Strict

class Fixed(Schedule):
    '''One of somebody's.'''

    class Config(Strict):
        strength: float = 0.125

    def factor(self, done):
        return self.config.strength
""",
    "pruners": """
from olfl_ray.pruners import Pruner
from olfl_ray.spec import Strict

class Above(Pruner):
    '''One of somebody's.'''

    class Config(Strict):
        strength: float = 0.125

    def decides(self, before, step):
        return before < 3 <= step

    def rule(self):
        from optuna.pruners import ThresholdPruner

        return ThresholdPruner(upper=self.config.strength)
""",
}
FIELDS = {"optimizers": "learner.optimizer", "schedules": "learner.schedule", "pruners": "search.pruner"}


@pytest.fixture(autouse=True)
def new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file `fresh` in each of the packages."""
    for package, text in FILES.items():
        folder = tmp_path / package
        folder.mkdir()
        (folder / "fresh.py").write_text(text)
        module = importlib.import_module(f"olfl_ray.{package}")
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
    importlib.invalidate_caches()
    yield
    for package in FILES:
        sys.modules.pop(f"olfl_ray.{package}.fresh", None)


def parsed(*overrides: str) -> Any:
    return parse_spec(SPEC.encode(), source="x.yaml", overrides=overrides)


@pytest.mark.parametrize("package", FILES)
def test_a_new_file_is_a_new_part(package: str) -> None:
    field = FIELDS[package]
    spec = parsed(f"{field}={{name: fresh, strength: 1}}")
    section = spec.model_dump()
    for part in field.split("."):
        section = section[part]
    assert section == {"name": "fresh", "strength": 1.0} | ({"lr": 0.25} if package == "optimizers" else {})
    with pytest.raises(SpecError, match=rf"^--set: {field}\.strenth: .*\(did you mean '{field}\.strength'\?\)"):
        parsed(f"{field}={{name: fresh, strenth: 1}}")
    with pytest.raises(SpecError, match=r"there is no 'frash' \(did you mean 'fresh'\?\); use one of "):
        parsed(f"{field}=frash")
    assert "- fresh: One of somebody's. Fields: " in complete_yaml()
    assert "'title': 'fresh'" in str(schema())


def test_a_new_file_is_used() -> None:
    changes = ("learner.optimizer.name=fresh", "learner.schedule=fresh", "search.pruner.name=fresh")
    spec = parsed(*changes, "learner.clip_norm=2")
    config = trial_config(spec, "a", {}, seeds=(0,))
    assert config.learner.optimizer.lr == 0.5, "what both have stays"
    assert base_optimizer(config) == Sgd(weight_decay=0.125, clip_norm=2.0)
    assert schedule_of(config)(0.5) == 0.125
    assert pruner_of(spec.search.pruner).decides(0, 3)
    searched = trial_config(spec, "a", {"learner.optimizer.name": "adam"}, seeds=(0,)).learner.optimizer
    assert (searched.lr, "strength" in searched.options, searched.options["beta1"]) == (0.5, False, 0.9)


@pytest.mark.parametrize(
    ("field", "parts"),
    [("learner.optimizer", OPTIMIZERS), ("learner.schedule", SCHEDULES), ("search.pruner", PRUNERS)],
)
def test_a_spec_is_read_without_torch_whatever_it_names(field: str, parts: Registry[Any]) -> None:
    names = sorted(set(parts.names()) - {"fresh"})
    script = (
        "import sys\nfrom olfl_ray.spec import parse_spec\n"
        f"for name in {names}:\n    parse_spec({SPEC.encode()!r}, overrides=[f'{field}={{name}}'])\n"
        "print(sorted({'torch', 'optuna'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ("learner.optimizer=5", "learner.optimizer", "a section with a name"),
        ("learner.optimizer={name: null}", "learner.optimizer", "a section with a name"),
        ("learner.optimizer={name: 'no module:x'}", "learner.optimizer.name", "package.module:Class"),
        ("learner.optimizer={name: 'mine:X', lr: -1}", "learner.optimizer.lr", "greater than or equal to 0"),
        ("learner.optimizer={name: adam, momentum: 0.5}", "learner.optimizer.momentum", "belongs to another `name`"),
        ("learner.optimizer={name: sgd, nesterov: true}", "learner.optimizer", "momentum > 0"),
        ("learner.schedule={name: milestones, at: [0.5, 0.2]}", "learner.schedule", "milestones must increase"),
        ("learner.schedule={name: milestones, at: [0.5, 2.0]}", "learner.schedule.at.1", "less than 1"),
        ("meta.optimizer=adm", "meta.optimizer", "did you mean 'adam'"),
        ("search.pruner={name: asha, reduction: 1}", "search.pruner.reduction", "greater than or equal to 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field(given: str, field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        parsed(given)
    assert caught.value.field == field


def test_an_error_in_the_file_has_its_line() -> None:
    text = SPEC.replace("momentum", "momentun")
    with pytest.raises(SpecError, match=r"^x\.yaml:4: learner\.optimizer\.momentun: .*'learner\.optimizer\.momentum'"):
        parse_spec(text.encode(), source="x.yaml")


def test_a_class_stands_for_its_name() -> None:
    fields = {"name": "s", "task": {"dataset": "digits"}, "search": {"parameters": {}, "pruner": Mine}}
    spec = parse_fields({**fields, "learner": LearnerSpec(optimizer=OptimizerSpec(name="adam"), schedule=Mine)})  # type: ignore[arg-type]
    assert spec.search.pruner.name == spec.learner.schedule.name == f"{__name__}:Mine"
    assert spec.learner.optimizer.lr == 0.001


class Mine:
    """Anything that another process can import."""
