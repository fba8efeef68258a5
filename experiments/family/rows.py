"""The benchmarks of the family: one study per method, with as many search trials as an equal number of passes allows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from olfl_ray.errors import SpecError
from olfl_ray.methods import complete
from olfl_ray.plugins import nearest
from olfl_ray.spec import Strict, StudySpec, parse_as, parse_fields, seed_of, trial_config
from olfl_ray.study import Home, run_trial

__all__ = ["BASELINE", "ROWS", "Family", "MethodCard", "Plan", "measured_passes", "plan_of", "read_family", "study_of"]

ROWS = Path(__file__).parent / "rows"
BASELINE = "task_loss"
"""The method that the others are compared with."""
COUNTING = "benchmarks.engine.counting:build"
"""A base learner with one hidden layer that counts its passes."""


class MethodCard(Strict):
    """One method."""

    title: str
    """Its name in the table."""
    set: dict[str, Any]
    """Its settings that differ from the study's."""
    sampler: dict[str, Any] = Field(default={"name": "tpe"})
    """Its searcher."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What it searches besides what all methods search."""
    relearn: bool = True
    """Whether the loss is learned again on each fresh seed (`confirm.relearn`)."""


class Family(Strict):
    """A benchmark."""

    title: str
    """Data set, base learner and metric."""
    passes: int
    """Base-learner passes of the search of each method."""
    study: dict[str, Any]
    """The spec that all methods share."""
    methods: dict[str, MethodCard]
    """The methods, in the table's order."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The study of one method.

    Args:
        method: The method, and the study's only arm.
        title: Its name in the table.
        spec: The study.
        passes: Passes of one search trial, all replicates.
    """

    method: str
    title: str
    spec: StudySpec
    passes: int

    @property
    def trials(self) -> int:
        """Search trials."""
        return self.spec.arms[self.method].trials

    def line(self) -> str:
        """One line for people."""
        total = self.passes * self.trials
        return f"{self.spec.name}: {self.trials} trials x {self.passes:,} passes = {total:,}"


def read_family(row: str, folder: Path = ROWS) -> Family:
    """A benchmark.

    Raises:
        SpecError: There is none of that name, or its file breaks a rule.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if row not in names:
        raise SpecError("ROW", f"there is no benchmark {row!r}{nearest(row, names)}; there are: {', '.join(names)}")
    path = folder / f"{row}.yaml"
    return parse_as(Family, path.read_bytes(), source=str(path))


def study_of(row: str, family: Family, method: str, trials: int = 1, seeds: int | None = None) -> StudySpec:
    """The study `family-ROW-METHOD`: all methods have the same seeds, splits and initial weights.

    Args:
        row: Name of the benchmark.
        family: The benchmark.
        method: The method.
        trials: Search trials.
        seeds: Fresh seeds; None: the benchmark's.
    """
    card, fields = family.methods[method], dict(family.study)
    fields["name"] = f"family-{row}-{method}"
    fields["search"] = {**fields["search"], "sampler": card.sampler}
    fields["arms"] = {method: {"set": card.set, "trials": trials, "parameters": card.parameters}}
    fields["confirm"] = {**fields["confirm"], "relearn": card.relearn, **({} if seeds is None else {"seeds": seeds})}
    return complete(parse_fields(fields))


def plan_of(
    row: str,
    folder: Path = ROWS,
    *,
    home: Home,
    methods: Sequence[str] = (),
    passes: int | None = None,
    seeds: int | None = None,
) -> list[Plan]:
    """The studies of a benchmark. One trial of each method is run here first, to count its passes.

    Args:
        row: Name of the benchmark.
        folder: Folder of the benchmarks.
        home: The home folder, for the data.
        methods: Only these; empty: all.
        passes: Passes of each search; None: the benchmark's.
        seeds: Fresh seeds; None: the benchmark's.
    """
    family = read_family(row, folder)
    plans = []
    for method in methods or family.methods:
        if method not in family.methods:
            raise SpecError("--method", f"there is no method {method!r}; there are: {', '.join(family.methods)}")
        one = measured_passes(study_of(row, family, method), method, home)
        trials = max(1, round((passes or family.passes) / one))
        spec = study_of(row, family, method, trials, seeds)
        plans.append(Plan(method=method, title=family.methods[method].title, spec=spec, passes=one))
    return plans


def measured_passes(spec: StudySpec, arm: str, home: Home) -> int:
    """Training passes of one search trial, all replicates: it is run, with a base learner that counts its forward passes.

    Args:
        spec: A study whose base learner is an MLP with one hidden layer.
        arm: Its arm, at the arm's own settings.
        home: The home folder, for the data.
    """
    (hidden,) = (spec.task.model.model_extra or {})["hidden"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "passes"
        seeds = tuple(seed_of(spec.seed, "search", replicate) for replicate in range(spec.replicates))
        model = {"name": COUNTING, "hidden": hidden, "file": str(file)}
        config = trial_config(spec, arm, {"task.model": model}, seeds=seeds)
        fresh = Home(Path(scratch) / "home")  # without losses that were initialised before
        for _ in run_trial(config, spec.resources, home=fresh):
            pass
        return file.stat().st_size
