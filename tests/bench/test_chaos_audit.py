"""The chaos benchmark's audit detects each possible violation in a study's runs, and changes to other studies' runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.conducting import study

from benchmarks.chaos import runs as audited
from benchmarks.chaos.runs import IDENTITY, fingerprints, read_runs
from olfl_ray.ledger import Began, Commit, Committed, Ended, Ledger, Proposed, StudyState, write_commit
from olfl_ray.records import Record, records_to_table, to_parquet
from olfl_ray.storage import LocalStorage
from olfl_ray.tracking.mlflow import open_store

STEPS = (10, 20)
TRIAL = "baseline/0"


def ended_study(folder: Path) -> tuple[StudyState, LocalStorage]:
    """A study with one finished trial of two replicates, and its report."""
    spec, storage = study(), LocalStorage(folder)
    ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    ledger.append(Proposed(trial=TRIAL, params={}, seeds=[1, 2]))
    ledger.append(Began(trial=TRIAL, attempt=1))
    for step in STEPS:
        records = [Record(step=step, time_ms=step, metrics={"selection/error": (step / 100, step / 50)})]
        made = Commit(trial=TRIAL, attempt=1, position=step, step=step, outcome=None, report={}, parent=None)
        made = write_commit(storage, made, {"records.parquet": to_parquet(records_to_table(records))})
        ledger.append(Committed(trial=TRIAL, attempt=1, commit=made.key, step=step, value=0.1, values={}))
    ledger.append(Ended(trial=TRIAL, state="finished", step=20, value=0.1, metrics={}, cause=None))
    (folder / "report" / "tables").mkdir(parents=True)
    for name in ("index.html", "tables/trials.csv"):
        (folder / "report" / name).write_text("a table")
    return ledger.state, storage


def deliver(client: Any, experiment: str, state: StudyState, report: Path) -> dict[str, str]:
    """Write the correct runs; returns their ids by the trial's name."""
    ids = {}
    for name in ("study", TRIAL):
        tags = {"olfl.study": state.name, IDENTITY: state.identity, "olfl.trial": name}
        ids[name] = run = client.create_run(experiment, tags=tags).info.run_id
        for step in STEPS if name == TRIAL else ():
            client.log_metric(run, "selection/error", 0.015 * step, step, step)
            client.log_metric(run, "selection/error_sd", 0.01 * step / 2**0.5, step, step)
        for artifact in audited.ARTIFACTS if name == TRIAL else ("spec.json",):
            client.log_text(run, "{}", artifact)
    client.log_artifacts(ids["study"], str(report), "report")
    for run in ids.values():
        client.set_terminated(run, "FINISHED")
    return ids


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{file}", "olfl", file.parent)
    return file


class Scene:
    """A study, its runs, and a second study with the same name and spec in the same store."""

    def __init__(self, folder: Path) -> None:
        self.uri, self.folder = f"sqlite:///{folder / 'mlflow.db'}", folder
        self.client = open_store(self.uri, "olfl", folder / "artifacts")
        experiment = self.client.create_experiment("here", (folder / "artifacts").as_uri())
        self.state, self.storage = ended_study(folder / "one")
        self.other, _ = ended_study(folder / "two")
        self.ids = deliver(self.client, experiment, self.state, folder / "one" / "report")
        self.others = deliver(self.client, experiment, self.other, folder / "one" / "report")
        self.experiment = experiment

    def found(self) -> dict[str, int]:
        """The audit's counts other than runs and points, if not 0."""
        found = read_runs(self.uri, "here", self.state, self.storage, self.folder / "one" / "report")
        assert found.count >= 1
        return {name: value for name in ("twice", "missing", "running", "wrong") if (value := getattr(found, name))}


@pytest.fixture
def scene(made: Path, tmp_path: Path) -> Scene:
    shutil.copy(made, tmp_path / "mlflow.db")
    return Scene(tmp_path)


def again(scene: Scene) -> None:
    scene.client.log_metric(scene.ids[TRIAL], "selection/error", 0.15, 99, 10)


def unknown(scene: Scene) -> None:
    scene.client.log_metric(scene.ids[TRIAL], "selection/error", 0.15, 30, 30)


def another_value(scene: Scene) -> None:
    made = scene.client.create_run(scene.experiment, tags={**scene.client.get_run(scene.ids[TRIAL]).data.tags})
    for step in STEPS:
        scene.client.log_metric(made.info.run_id, "selection/error", 0.5, step, step)
        scene.client.log_metric(made.info.run_id, "selection/error_sd", 0.01 * step / 2**0.5, step, step)
    for artifact in audited.ARTIFACTS:
        scene.client.log_text(made.info.run_id, "{}", artifact)
    scene.client.set_terminated(made.info.run_id, "FINISHED")
    scene.client.delete_run(scene.ids[TRIAL])


def second_run(scene: Scene) -> None:
    tags = scene.client.get_run(scene.ids["study"]).data.tags
    made = scene.client.create_run(scene.experiment, tags={**tags})
    scene.client.log_text(made.info.run_id, "{}", "spec.json")
    scene.client.log_artifacts(made.info.run_id, str(scene.folder / "one" / "report"), "report")
    scene.client.set_terminated(made.info.run_id, "FINISHED")


CHANGES: dict[str, tuple[Callable[[Scene], Any], dict[str, int]]] = {
    "nothing": (lambda scene: None, {}),
    "a step twice": (again, {"twice": 1}),
    "a step that no record has": (unknown, {"twice": 1}),
    "another value": (another_value, {"wrong": 2}),
    "a second parent": (second_run, {"twice": 1}),
    "a run RUNNING": (
        lambda scene: scene.client.update_run(scene.ids["study"], "RUNNING"),
        {"running": 1, "wrong": 1},
    ),
    "a run FAILED": (lambda scene: scene.client.set_terminated(scene.ids[TRIAL], "FAILED"), {"wrong": 1}),
    "a run deleted": (lambda scene: scene.client.delete_run(scene.ids[TRIAL]), {"missing": 1}),
    "a report of before": (
        lambda scene: (scene.folder / "one" / "report" / "tables" / "trials.csv").write_text("more"),
        {"wrong": 1},
    ),
    "an artifact missing": (
        lambda scene: next((scene.folder / "artifacts" / scene.ids[TRIAL]).rglob("result.json")).unlink(),
        {"missing": 1},
    ),
    "another study's run": (lambda scene: scene.client.delete_run(scene.others[TRIAL]), {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_audit_detects(scene: Scene, change: str) -> None:
    do, wanted = CHANGES[change]
    do(scene)
    assert scene.found() == wanted


TOUCHES: dict[str, Callable[[Scene, str], Any]] = {
    "a tag": lambda scene, run: scene.client.set_tag(run, "olfl.state", "pruned"),
    "a status": lambda scene, run: scene.client.update_run(run, "RUNNING"),
    "a point": lambda scene, run: scene.client.log_metric(run, "selection/error", 0.1, 99, 10),
    "an artifact": lambda scene, run: scene.client.log_text(run, "", "more.txt"),
    "a deletion": lambda scene, run: scene.client.delete_run(run),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_change_to_another_studys_run_is_detected_and_to_its_own_is_ignored(scene: Scene, touch: str) -> None:
    before = fingerprints(scene.uri, "here", without=scene.state)
    assert set(before) == set(scene.others.values())
    TOUCHES[touch](scene, scene.ids[TRIAL])
    assert fingerprints(scene.uri, "here", without=scene.state) == before
    TOUCHES[touch](scene, scene.others[TRIAL])
    now = fingerprints(scene.uri, "here", without=scene.state)
    assert [run for run, digest in before.items() if now.get(run) != digest] == [scene.others[TRIAL]]


def test_missing_point_is_detected(scene: Scene) -> None:
    ledger_has_more = replace(scene.state.trials[TRIAL], commits=scene.state.trials[TRIAL].commits[:1])
    assert scene.found() == {}
    scene.state = replace(scene.state, trials={TRIAL: ledger_has_more})
    assert scene.found() == {"twice": 2}
