"""The MLflow sink: one parent run a study, one child run a trial, fed from committed records by the driver alone."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olfl_ray.errors import SetupError
from olfl_ray.ledger import Event, StudyState, TrialState, read_commit
from olfl_ray.records import from_parquet
from olfl_ray.spec import StudySpec, TrialConfig, trial_config
from olfl_ray.storage import Storage

__all__ = ["Sink", "prepare_store"]

BATCH = 1000
STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
DONE_TAG, STUDY_TAG, TRIAL_TAG = "olfl.delivered", "olfl.study", "olfl.trial"


def prepare_store(uri: str, experiment: str, artifacts: Path | None) -> Any:
    """Open the tracking store and make the experiment, once, before any trial.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment.
        artifacts: Folder of artifacts for a store without a server, else None.

    Returns:
        The MLflow client.

    Raises:
        SetupError: The store can't be reached.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("alembic").setLevel(logging.WARNING)
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            client = MlflowClient(tracking_uri=uri)
            if client.get_experiment_by_name(experiment) is None:
                client.create_experiment(experiment, None if artifacts is None else artifacts.resolve().as_uri())
            return client
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SetupError(
            f"tracking.uri: {uri} can't be reached ({reason}); start the server or correct the URI"
        ) from None


class Sink:
    """Delivers what the ledger says to MLflow, in a thread of its own; training never waits for it.

    Delivery can be repeated: a trial's run is found by its tags before it is made, and records keep their times, so
    the store drops a metric that it has already.

    Args:
        client: From `prepare_store`.
        spec: The study.
        storage: The study's storage.
        git_commit: Commit of the working folder, or empty.
    """

    def __init__(self, client: Any, spec: StudySpec, storage: Storage, git_commit: str = "") -> None:
        self._client, self._spec, self._storage, self._git = client, spec, storage, git_commit
        self._queue: queue.Queue[TrialState | None] = queue.Queue()
        self._runs: dict[str, str] = {}
        self._delivered: dict[str, set[str]] = {}
        self._parent = ""
        self._experiment = client.get_experiment_by_name(spec.tracking.experiment).experiment_id
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._work, name="mlflow-sink", daemon=True)

    def start(self, state: StudyState) -> None:
        """Begin delivering; everything that the store lacks is sent first."""
        self._state = state
        self._thread.start()
        for trial in state.trials.values():
            self._queue.put(trial)

    def observe(self, event: Event, state: StudyState) -> None:
        """Take an event of the ledger; returns at once."""
        trial = getattr(event, "trial", None)
        if trial is not None and type(event).__name__ in ("Began", "Committed", "Ended", "Stopped"):
            self._queue.put(state.trials[trial])

    def close(self, state: StudyState, files: Mapping[str, Path], *, finished: bool, timeout: float = 60.0) -> int:
        """Deliver what is left and end the parent run.

        Returns:
            Number of trials that could not be delivered in time; the next start delivers them.
        """
        self._queue.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive() or not self._parent:
            return self._queue.qsize() + 1
        missing = 0
        for trial in state.trials.values():
            try:
                self._deliver(trial)
            except Exception as error:
                self.failures.append(str(error).splitlines()[0])
                missing += 1
        try:
            for folder, path in files.items():
                self._client.log_artifacts(self._parent, str(path), folder)
            self._client.set_terminated(self._parent, "FINISHED" if finished else "KILLED")
        except Exception as error:
            self.failures.append(str(error).splitlines()[0])
            missing += 1
        return missing

    def _work(self) -> None:
        while True:
            trial = self._queue.get()
            if trial is None:
                return
            for delay in (0.0, 0.5, 2.0):
                time.sleep(delay)
                try:
                    self._deliver(trial)
                    break
                except Exception as error:
                    self.failures.append((str(error) or type(error).__name__).splitlines()[0])

    def _deliver(self, trial: TrialState) -> None:
        """Bring one trial's run up to date with its state."""
        if not self._parent:
            self._parent = self._find_or_create(f"tags.`{TRIAL_TAG}` = 'study'", self._parent_tags(), self._spec.name)
            self._client.log_text(self._parent, self._spec.model_dump_json(indent=2, by_alias=True), "spec.json")
        name = str(trial.id)
        if trial.attempt == 0 and not trial.ended:
            return
        sent = self._delivered.setdefault(name, set())
        if "end" in sent:
            return
        run = self._runs.get(name) or self._open_run(trial)
        for committed in trial.commits:
            if committed.commit not in sent:
                self._send_records(run, committed.commit)
                sent.add(committed.commit)
        if trial.ended:
            self._send_end(run, trial)
            sent.add("end")
        elif trial.state == "stopped":
            self._client.set_terminated(run, "KILLED")

    def _parent_tags(self) -> dict[str, str]:
        return {
            STUDY_TAG: self._spec.name,
            TRIAL_TAG: "study",
            "olfl.digest": self._spec.digest,
            "olfl.git_commit": self._git,
        }

    def _find_or_create(self, condition: str, tags: dict[str, str], run_name: str) -> str:
        query = (
            f"tags.`{STUDY_TAG}` = '{self._spec.name}' and tags.`olfl.digest` = '{self._spec.digest}' and {condition}"
        )
        found = self._client.search_runs([self._experiment], query, max_results=1)
        if found:
            run = found[0]
            if run.info.status != "RUNNING":
                self._client.update_run(run.info.run_id, "RUNNING")
            return str(run.info.run_id)
        run = self._client.create_run(self._experiment, tags=tags, run_name=run_name)
        return str(run.info.run_id)

    def _open_run(self, trial: TrialState) -> str:
        from mlflow.entities import Param

        name = str(trial.id)
        tags = {
            **self._parent_tags(),
            TRIAL_TAG: name,
            "mlflow.parentRunId": self._parent,
            "olfl.arm": trial.id.arm,
            "olfl.ordinal": trial.id.name,
            "olfl.role": "confirm" if trial.id.confirming else "search",
        }
        run = self._find_or_create(f"tags.`{TRIAL_TAG}` = '{name}'", tags, name)
        self._runs[name] = run
        config = self._config(trial)
        params = [
            Param(key, value[:6000]) for key, value in _flat(config.model_dump(mode="json", by_alias=True)).items()
        ]
        self._client.log_batch(run, params=params[:100])
        self._client.log_text(run, config.model_dump_json(indent=2, by_alias=True), "config.json")
        return run

    def _config(self, trial: TrialState) -> TrialConfig:
        return trial_config(
            self._spec, trial.id.arm, trial.params, seeds=tuple(trial.seeds), confirming=trial.id.confirming
        )

    def _send_records(self, run: str, key: str) -> None:
        """Means over replicates as metrics, spreads beside them as `.../sd`."""
        from mlflow.entities import Metric

        file = read_commit(self._storage, key).file(".records.parquet")
        if file is None:
            return
        table = from_parquet(self._storage.read(file))
        groups: dict[tuple[int, str, int], list[float]] = {}
        for row in table.to_pylist():
            groups.setdefault((row["step"], row["metric"], row["time_ms"]), []).append(row["value"])
        metrics = []
        for (step, metric, time_ms), values in groups.items():
            mean = sum(values) / len(values)
            metrics.append(Metric(metric, mean, time_ms, step))
            if len(values) > 1:
                sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
                metrics.append(Metric(f"{metric}/sd", sd, time_ms, step))
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])

    def _send_end(self, run: str, trial: TrialState) -> None:
        from mlflow.entities import RunTag

        if trial.commits:
            commit = read_commit(self._storage, trial.commits[-1].commit)
            for key in commit.files:
                name = key.rsplit(".", 2)[-2:]
                if "learned_loss" in key:
                    self._log_bytes(run, self._storage.read(key), ".".join(name), "learned_loss")
        if trial.cause:
            self._client.log_text(run, trial.cause, "cause.txt")
        summary = {name: sum(values) / len(values) for name, values in trial.metrics.items() if values}
        self._client.log_dict(
            run, {"state": trial.state, "report": summary, "replicates": dict(trial.metrics)}, "result.json"
        )
        self._client.log_batch(
            run, tags=[RunTag("olfl.state", trial.state), RunTag("olfl.report", json.dumps(summary)[:8000])]
        )
        assert trial.ended_at is not None
        self._client.set_terminated(run, STATUS[trial.state], int(trial.ended_at * 1000))

    def _log_bytes(self, run: str, data: bytes, name: str, folder: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_bytes(data)
            self._client.log_artifact(run, str(path), folder)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return found
