"""MLflow's real store in an SQLite file whose schema is created once; and a study with hand-written commits, without Ray."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.conducting import study

from olfl_ray.ledger import (
    Began,
    Commit,
    Committed,
    Ended,
    Ledger,
    Proposed,
    Reopened,
    Stopped,
    StudyState,
    write_commit,
)
from olfl_ray.records import Record, records_to_table, to_parquet
from olfl_ray.spec import StudySpec
from olfl_ray.storage import LocalStorage
from olfl_ray.tracking import Sink, TrackedStudy
from olfl_ray.tracking.mlflow import Mlflow, Runs, open_store, sqlite_uri

EXPERIMENT = "olfl"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(sqlite_uri(file), EXPERIMENT, file.parent)
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """URI of a store for this test only."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return sqlite_uri(tmp_path / "mlflow.db")


class Home:
    """One study in its own folder, which delivers to a store."""

    def __init__(self, folder: Path, uri: str, spec: StudySpec) -> None:
        self.uri, self.spec = uri, spec
        self.storage = LocalStorage(folder / "s")
        self.ledger = Ledger.create(
            self.storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {}
        )

    @property
    def state(self) -> StudyState:
        return self.ledger.state

    @property
    def tracked(self) -> TrackedStudy:
        return TrackedStudy(spec=self.spec, storage=self.storage, home=self.storage.root)

    def runs(self) -> Runs:
        """A driver's."""
        client = open_store(self.uri, EXPERIMENT, self.storage.root)
        return Runs(client, self.tracked, self.state.identity, EXPERIMENT)

    def sink(self, kind: type[Mlflow] = Mlflow, fenced: Callable[[], bool] = lambda: False) -> Sink:
        """A driver's."""
        tracker = kind(Mlflow.Config(uri=self.uri, experiment=EXPERIMENT), self.tracked)
        return Sink(tracker, self.state.identity, fenced)

    def trial(
        self, name: str, steps: Sequence[int] = (10, 20), *, end: str | None = "finished", metrics: int = 1
    ) -> None:
        """A trial with a commit at each of the steps, and its end."""
        if name not in self.state.trials:
            self.ledger.append(Proposed(trial=name, params={}, seeds=[1]))
        attempt = self.state.trials[name].attempt + 1
        self.ledger.append(Began(trial=name, attempt=attempt))
        for step in steps:
            values = {"selection/error": (step / 1000,), **{f"more/{index}": (1.0,) for index in range(metrics - 1)}}
            records = [Record(step=step, time_ms=1_700_000_000_000 + 1000 * attempt + step, metrics=values)]
            made = Commit(trial=name, attempt=attempt, position=step, step=step, outcome=None, report={}, parent=None)
            made = write_commit(self.storage, made, {"records.parquet": to_parquet(records_to_table(records))})
            self.ledger.append(
                Committed(
                    trial=name, attempt=attempt, commit=made.key, step=step, value=0.1, values={"selection/error": 0.1}
                )
            )
        if end == "stopped":
            self.ledger.append(Stopped(trial=name))
        elif end is not None:
            cause = "ValueError: boom" if end == "failed" else None
            self.ledger.append(
                Ended(trial=name, state=end, step=max(steps, default=0), value=0.1, metrics={}, cause=cause)
            )

    def end(self, name: str, metrics: dict[str, list[float]]) -> None:
        step = self.state.trials[name].step
        self.ledger.append(Ended(trial=name, state="finished", step=step, value=0.1, metrics=metrics, cause=None))

    def reopen(self, name: str, scratch: int = 0) -> None:
        self.ledger.append(Reopened(trial=name, scratch=scratch))

    def deliver(self, runs: Runs, *names: str) -> None:
        for name in names or self.state.trials:
            runs.deliver(self.state.trials[name])


@pytest.fixture
def home(tmp_path: Path, store: str) -> Callable[..., Home]:
    """Creates the study `s` in a folder; a second one differs from it only in its identity."""

    def begin(folder: str = "a", uri: str = store, **changes: Any) -> Home:
        return Home(tmp_path / folder, uri, study(**changes))

    return begin


class Held:
    """The content of a store, read by MLflow's own client."""

    def __init__(self, uri: str) -> None:
        from mlflow.entities import ViewType
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(uri)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        self.runs = [] if experiment is None else list(self.client.search_runs([experiment.experiment_id]))
        self.deleted = (
            []
            if experiment is None
            else list(self.client.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY))
        )

    def of(self, home: Home) -> dict[str, Any]:
        """A study's runs by trial; each must exist once."""
        own = [run for run in self.runs if run.data.tags["olfl.identity"] == home.state.identity]
        counts = Counter(run.data.tags["olfl.trial"] for run in own)
        assert set(counts.values()) <= {1}, counts
        return {run.data.tags["olfl.trial"]: run for run in own}

    def steps(self, run: Any, metric: str = "selection/error") -> list[int]:
        return [point.step for point in self.client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture
def held(store: str) -> Callable[..., Held]:
    return lambda uri=store: Held(uri)
