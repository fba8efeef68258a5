"""Every built-in tracker fulfills the contract, and the contract rejects trackers that do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.ledger import TrialState
from olfl_ray.testing import Kept, TrackerContract
from olfl_ray.tracking import TRACKERS, TrackedStudy, Tracker
from olfl_ray.tracking.json_lines import JsonLines
from olfl_ray.tracking.mlflow import Mlflow, embedded_uri, open_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow file without runs: creating its schema takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    open_store(embedded_uri(folder), "olfl", folder)
    return folder / "mlflow.db"


class TestMlflow(TrackerContract):
    @pytest.fixture(autouse=True)
    def _store(self, empty_store: Path) -> None:
        self.empty_store = empty_store

    def make(self, study: TrackedStudy) -> Tracker:
        if not (file := study.home / "mlflow.db").exists():
            shutil.copy(self.empty_store, file)
        return Mlflow(Mlflow.Config(uri=embedded_uri(study.home)), study)

    def kept(self, study: TrackedStudy, identity: str) -> dict[str, Kept]:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(embedded_uri(study.home))
        experiment = client.get_experiment_by_name("olfl")
        found: dict[str, Kept] = {}
        for run in client.search_runs([experiment.experiment_id]):
            name = run.data.tags["olfl.trial"]
            if run.data.tags["olfl.identity"] != identity or name == "study":
                continue
            assert name not in found, "one run per trial"
            histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
            ends = [histories.pop(key) for key in list(histories) if key.startswith(("result/", "last/"))]
            assert all(len(history) == 1 for history in ends), "the values of the end are stored once"
            points = [(point.step, key, point.value) for key, history in histories.items() for point in history]
            running = run.info.status in ("RUNNING", "KILLED")
            found[name] = Kept(sorted(points), "" if running else run.data.tags["olfl.state"])
        return found

    def intercept(self, tracker: Tracker, wrap: Callable[[Any], Any]) -> bool:
        assert isinstance(tracker, Mlflow)
        connect = tracker.open

        def open_wrapped(identity: str) -> None:
            connect(identity)
            tracker._runs._client = wrap(tracker._runs._client)

        tracker.open = open_wrapped  # type: ignore[method-assign]
        return True


class InFiles(TrackerContract):
    """Reads JSON lines of any tracker with the format of the built-in one."""

    kind: type[JsonLines] = JsonLines
    elsewhere = False

    def make(self, study: TrackedStudy) -> Tracker:
        return self.kind(JsonLines.Config(folder=str(study.home / "lines") if self.elsewhere else None), study)

    def kept(self, study: TrackedStudy, identity: str) -> dict[str, Kept]:
        folder = study.storage.root / "tracking"  # type: ignore[attr-defined]
        if self.elsewhere:
            folder = study.home / "lines" / study.spec.name / identity
        found = {}
        for file in folder.glob("*/*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            assert (rows[0]["kind"], rows[0]["identity"]) == ("trial", identity)
            records = [(row["step"], row["metric"], row["value"]) for row in rows if row["kind"] == "record"]
            ends = [row["state"] for row in rows if row["kind"] == "end"]
            assert len(ends) <= 1
            found[rows[0]["trial"]] = Kept(records, "".join(ends))
        return found

    def intercept(self, tracker: Tracker, wrap: Callable[[Any], Any]) -> bool:
        tracker.study = replace(tracker.study, storage=wrap(tracker.study.storage))
        return True


class TestJsonLines(InFiles):
    pass


class TestJsonLinesElsewhere(InFiles):
    elsewhere = True


def test_each_built_in_tracker_is_tested() -> None:
    assert TRACKERS.names() == ["json_lines", "mlflow"]


class Forgets(JsonLines):
    """Deletes at its opening what earlier drivers delivered."""

    def open(self, identity: str) -> None:
        super().open(identity)
        for key in self.study.storage.keys("tracking/"):
            self.study.storage.delete(key)


class Doubles(JsonLines):
    """Appends each delivery to the earlier ones."""

    def _write(self, name: str, rows: list[dict[str, Any]]) -> None:
        try:
            before = self._root().read(self._key(name))
        except FileNotFoundError:
            before = b""
        super()._write(name, rows)
        self._root().write(self._key(name), before + self._root().read(self._key(name)))


class Marks(JsonLines):
    """Marks a trial as delivered before it is, and never delivers it again."""

    def deliver(self, trial: TrialState) -> None:
        mark = f"tracking/{trial.id}.delivered-{len(trial.commits)}-{trial.state}"
        if self._root().create(mark, b""):
            super().deliver(trial)


class Mixes(JsonLines):
    """Puts all studies of a name into one folder."""

    def _key(self, name: str) -> str:
        return f"all/{name}"


class Content(JsonLines):
    """Reports that everything is stored."""

    def undelivered(self, state: Any) -> int:
        return 0


KILLED = "test_driver_killed_at_any_call_leaves_each_record_once"


@pytest.mark.parametrize(
    ("fault", "elsewhere", "test"),
    [
        (Forgets, False, "test_a_new_driver_keeps_what_an_earlier_one_delivered"),
        (Doubles, False, "test_repeated_delivery_is_stored_once"),
        (Doubles, False, KILLED),
        (Marks, False, KILLED),
        (Mixes, True, "test_studies_with_the_same_name_are_not_mixed"),
        (Content, False, "test_undelivered_counts_what_is_missing"),
    ],
)
def test_planted_fault_is_detected(fault: type[JsonLines], elsewhere: bool, test: str, tmp_path: Path) -> None:
    suite = InFiles()
    suite.kind, suite.elsewhere = fault, elsewhere
    with pytest.raises((AssertionError, KeyError)):
        getattr(suite, test)(tmp_path)
    sound = InFiles()
    sound.elsewhere = elsewhere
    getattr(sound, test)(tmp_path / "sound")
