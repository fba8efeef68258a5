"""A study's runs in MLflow: one parent, one child a trial; every word can be said twice without leaving a trace."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olfl_ray.errors import DataError
from olfl_ray.ledger import TrialState, read_commit, read_file
from olfl_ray.records import RECORDS, from_parquet
from olfl_ray.spec import StudySpec, trial_config
from olfl_ray.storage import Storage

__all__ = ["DatasetNote", "Runs"]

BATCH = 1000
"""Most metrics in one call, MLflow's limit."""
STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}
STUDY_TAG, TRIAL_TAG, STORAGE_TAG = "olfl.study", "olfl.trial", "olfl.storage"
DatasetNote = Mapping[str, Any]
"""An arm's data set for MLflow: name, digest (36 characters at most), source, rows."""


class Runs:
    """Writes to one study's runs.

    A trial's run is found by its tags before it is made, and records keep their times: the store drops a metric that
    it has already.

    Args:
        client: From `open_store`.
        spec: The study.
        storage: The study's storage.
        git_commit: Commit of the working folder, or empty.
        datasets: Each arm's data set.
    """

    def __init__(
        self, client: Any, spec: StudySpec, storage: Storage, git_commit: str, datasets: Mapping[str, DatasetNote]
    ) -> None:
        self._client, self._spec, self._storage, self._git = client, spec, storage, git_commit
        self._datasets = datasets
        self._experiment = client.get_experiment_by_name(spec.tracking.experiment).experiment_id
        self._one_process = not str(client.tracking_uri).startswith("http")  # between us and it no answer gets lost
        self._asked_for: set[str] = set()
        self._runs: dict[str, str] = {}
        self._sent: dict[str, set[str]] = {}
        self._parent = self._find_or_create("study", self._tags("study"), spec.name)
        # Where the studies are kept: who has a study's name alone finds it by this run.
        client.set_tag(self._parent, STORAGE_TAG, storage.url.rpartition("/")[0])
        client.log_text(self._parent, spec.model_dump_json(indent=2, by_alias=True), "spec.json")

    def deliver(self, trial: TrialState, *, new: bool = False) -> None:
        """Bring a trial's run up to date with its state.

        Args:
            trial: As it stands now.
            new: Whether no driver before this one can have made its run.

        Raises:
            Exception: The store can't be reached; say it again later.
        """
        if trial.attempt == 0 and not trial.ended:
            return
        from mlflow.entities import RunTag

        name = str(trial.id)
        params: list[Any] = []
        tags: list[Any] = []
        if name in self._runs:
            run = self._runs[name]
        else:
            run, params = self._open(trial, new)
        sent = self._sent.setdefault(name, set())
        unsent = [committed.commit for committed in trial.commits if committed.commit not in sent]
        metrics = [metric for key in unsent for metric in self._records(run, key, fresh=not trial.redone)]
        summary = {metric: sum(values) / len(values) for metric, values in trial.metrics.items() if values}
        if trial.ended:
            tags = [RunTag("olfl.state", trial.state), RunTag("olfl.report", json.dumps(summary)[:8000])]
        self._log(run, params, tags, metrics)
        self._runs[name] = run
        sent.update(unsent)
        if trial.ended:
            self._send_end(run, trial, summary)
            del self._runs[name], self._sent[name]
        elif trial.state == "stopped":
            self._client.set_terminated(run, "KILLED")
            del self._runs[name]

    def close(self, files: Mapping[str, Path], *, finished: bool) -> None:
        """End the parent run, with folders of files as its artifacts."""
        for folder, path in files.items():
            self._client.log_artifacts(self._parent, str(path), folder)
        self._client.set_terminated(self._parent, "FINISHED" if finished else "KILLED")

    def _tags(self, name: str) -> dict[str, str]:
        tags = {STUDY_TAG: self._spec.name, TRIAL_TAG: name, "olfl.digest": self._spec.digest}
        return {**tags, "olfl.git_commit": self._git} if self._git else tags

    def _log(self, run: str, params: list[Any], tags: list[Any], metrics: list[Any]) -> None:
        """All of it in as few calls as MLflow's limits allow."""
        if params or tags or metrics:
            room = BATCH - len(params) - len(tags)
            self._client.log_batch(run, metrics=metrics[:room], params=params, tags=tags)
            for start in range(room, len(metrics), BATCH):
                self._client.log_batch(run, metrics=metrics[start : start + BATCH])

    def _find_or_create(self, name: str, tags: dict[str, str], run_name: str, *, new: bool = False) -> str:
        """The run of a name. An answer that was lost may have left two: the first stays, the others hold nothing."""
        wanted = {STUDY_TAG: self._spec.name, TRIAL_TAG: name, "olfl.digest": self._spec.digest}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())

        def search() -> list[Any]:
            return list(self._client.search_runs([self._experiment], query, order_by=["attributes.start_time ASC"]))

        found = [] if new and name not in self._asked_for else search()
        self._asked_for.add(name)
        if not found:
            made = self._client.create_run(self._experiment, tags=tags, run_name=run_name)
            found = [made] if self._one_process else search()
        first, *others = found
        for other in others:
            self._client.delete_run(other.info.run_id)
        if first.info.status != "RUNNING":
            self._client.update_run(first.info.run_id, "RUNNING")
        return str(first.info.run_id)

    def _open(self, trial: TrialState, new: bool) -> tuple[str, list[Any]]:
        """A trial's run, and the params that it is to have."""
        from mlflow.entities import Param

        name = str(trial.id)
        tags = {
            **self._tags(name),
            "mlflow.parentRunId": self._parent,
            "olfl.arm": trial.id.arm,
            "olfl.ordinal": trial.id.name,
            "olfl.role": "confirm" if trial.id.confirming else "search",
        }
        run = self._find_or_create(name, tags, name, new=new)
        config = trial_config(
            self._spec, trial.id.arm, trial.params, seeds=tuple(trial.seeds), confirming=trial.id.confirming
        )
        flat = _flat(config.model_dump(mode="json", by_alias=True))
        self._client.log_text(run, config.model_dump_json(indent=2, by_alias=True), "config.json")
        self._log_dataset(run, trial.id.arm)
        return run, [Param(key, value[:6000]) for key, value in flat.items()][:100]

    def _log_dataset(self, run: str, arm: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        note = self._datasets.get(arm)
        if note is None:
            return
        dataset = Dataset(
            name=note["name"],
            digest=note["digest"],
            source_type="local",
            source=json.dumps({"source": note["source"]}),
            profile=json.dumps({"num_rows": note["rows"]}),
        )
        self._client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _records(self, run: str, key: str, *, fresh: bool) -> list[Any]:
        """Means over replicates as metrics, spreads beside them as `.../sd`; `fresh`: none of them is there."""
        from mlflow.entities import Metric

        try:
            data = read_file(self._storage, read_commit(self._storage, key), ".records.parquet")
            table = None if data is None else from_parquet(data, RECORDS)
        except DataError:
            return []  # what is damaged stays out; the analysis names it
        groups: dict[tuple[int, str, int], list[float]] = {}
        for row in table.to_pylist() if table is not None else ():
            groups.setdefault((row["step"], row["metric"], row["time_ms"]), []).append(row["value"])
        metrics = []
        for (step, metric, time_ms), values in groups.items():
            mean = sum(values) / len(values)
            metrics.append(Metric(metric, mean, time_ms, step))
            if len(values) > 1:
                sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
                metrics.append(Metric(f"{metric}/sd", sd, time_ms, step))
        if not fresh:
            there = {
                (name, point.step)
                for name in {metric.key for metric in metrics}
                for point in self._client.get_metric_history(run, name)
            }
            metrics = [metric for metric in metrics if (metric.key, metric.step) not in there]
        return metrics

    def _send_end(self, run: str, trial: TrialState, summary: Mapping[str, float]) -> None:
        if trial.commits:
            self._send_learned_loss(run, trial.commits[-1].commit)
        if trial.cause:
            self._client.log_text(run, trial.cause, "cause.txt")
        result = {"state": trial.state, "report": summary, "replicates": dict(trial.metrics)}
        self._client.log_dict(run, result, "result.json")
        assert trial.ended_at is not None
        self._client.set_terminated(run, STATUS[trial.state], int(trial.ended_at * 1000))

    def _send_learned_loss(self, run: str, key: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                commit = read_commit(self._storage, key)
                for suffix in ("safetensors", "json"):
                    data = read_file(self._storage, commit, f".learned_loss.{suffix}")
                    if data is None:
                        return
                    (Path(scratch) / f"learned_loss.{suffix}").write_bytes(data)
            except DataError:
                return
            self._client.log_artifacts(run, scratch, "learned_loss")


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return found
