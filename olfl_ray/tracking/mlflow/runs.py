"""A study's runs in MLflow: one parent, one child per trial; delivery is idempotent."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from olfl_ray.errors import DataError
from olfl_ray.ledger import TrialState, left_by_learnable, read_commit
from olfl_ray.records import names
from olfl_ray.spec import without_secrets
from olfl_ray.tracking.mlflow.existing import (
    IDENTITY_TAG,
    PARENT,
    STATUS,
    STORAGE_TAG,
    STUDY_TAG,
    TRIAL_TAG,
    found,
    shows,
)
from olfl_ray.tracking.mlflow.model import FOLDER as MODEL
from olfl_ray.tracking.mlflow.model import write_model
from olfl_ray.tracking.mlflow.settings import as_key, as_params, in_batches
from olfl_ray.tracking.tracker import TrackedArm, TrackedStudy

__all__ = ["Runs"]

PARENT_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"
"""MLflow's own: a run's parent, and the description at the top of a run's page."""
BATCH = 1000
"""MLflow's limit on metrics, params and tags together in one call."""


class Runs:
    """Writes to one study's runs.

    Only runs with the study's identity are read, changed or removed. A trial's run is looked up before it is created, and
    records keep their timestamps: the store drops a metric that it already has.

    Args:
        client: From `open_store`.
        study: The study.
        identity: The study's identity, from its ledger.
        experiment: Name of the experiment.
        models: Whether confirming trials' runs get their models.
    """

    def __init__(
        self, client: Any, study: TrackedStudy, identity: str, experiment: str, *, models: bool = False
    ) -> None:
        self._models = models
        self._client, self._study, self._spec, self._identity = client, study, study.spec, identity
        self._experiment = client.get_experiment_by_name(experiment).experiment_id
        self._there: dict[str, list[Any]] = {}  # runs in the store at the start by name, the earliest first
        for run in found(client, self._experiment, identity):
            self._there.setdefault(run.data.tags[TRIAL_TAG], []).append(run)
        self._tried: set[str] = set()
        self._open_runs: dict[str, str] = {}
        self._sent: dict[str, set[str]] = {}
        children = [run for name, runs in self._there.items() if name != PARENT for run in runs]
        self._parent = self._made_parent()
        self._adopt(children)  # an earlier driver may have been killed when it had made another parent

    def deliver(self, trial: TrialState) -> None:
        """Update a trial's run to the trial's state.

        Args:
            trial: Its current state.

        Raises:
            Exception: The store can't be reached, or refuses; call it again later.
        """
        name = str(trial.id)
        if trial.attempt == 0 and not trial.ended:
            return
        runs = self._there.get(name, [])
        if len(runs) == 1 and shows(runs[0], trial):
            return
        try:
            self._deliver(name, trial)
        except Exception:
            # Another driver may have removed the run as a duplicate: look it up again, and send everything again.
            self._open_runs.pop(name, None)
            self._sent.pop(name, None)
            raise

    def summarise(self, arms: Sequence[TrackedArm]) -> None:
        """Write the study's settings and each arm's outcome to the parent run, so that MLflow can compare studies.

        MLflow never changes a param. If a winner is another one than before, as after more trials, the parent run is deleted
        and created again, and the trials' runs become its children.

        Args:
            arms: Each arm's outcome.
        """
        from mlflow.entities import Metric

        best = {arm.arm: {"trial": arm.best, **arm.settings} for arm in arms if arm.best is not None}
        params = as_params({**self._spec.identity(), "best": best})
        run = self._client.get_run(self._parent)
        if any(run.data.params.get(name, value) != value for name, value in params.items()):
            self._client.delete_run(self._parent)
            self._parent = self._made_parent()
            self._adopt(found(self._client, self._experiment, self._identity))
            run = self._client.get_run(self._parent)
        values = {as_key(f"{arm.arm}/{name}"): value for arm in arms for name, value in arm.metrics.items()}
        changed = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
        now, step = int(time.time() * 1000), sum(arm.ended for arm in arms)
        lacking = {name: value for name, value in params.items() if name not in run.data.params}
        self._log(self._parent, lacking, [], [Metric(name, value, now, step) for name, value in changed.items()])

    def links(self, page: str) -> dict[str, str]:
        """Where each run is, by the trial's name or the parent's: its id, or on a server its page.

        Args:
            page: URL of MLflow's page, up to `#/`; empty: there is none.
        """
        runs = found(self._client, self._experiment, self._identity)
        at = f"{page}experiments/{self._experiment}/runs/" if page else ""
        return {run.data.tags[TRIAL_TAG]: f"{at}{run.info.run_id}" for run in runs}

    def close(self, files: Mapping[str, Path], *, status: str) -> None:
        """End the parent run; its description names the report.

        Args:
            files: Folders that become its artifacts.
            status: FINISHED, FAILED or KILLED.
        """
        for folder, path in files.items():
            self._client.log_artifacts(self._parent, str(path), folder)
        if "report" in files:
            page = files["report"] / "index.html"
            note = f"Report: artifact `report/index.html` of this run; on {socket.gethostname()}: `{page}`"
            self._client.set_tag(self._parent, NOTE_TAG, note)
            self._client.set_tag(self._parent, "olfl.report_page", str(page))
        self._client.set_terminated(self._parent, status)

    def _deliver(self, name: str, trial: TrialState) -> None:
        from mlflow.entities import RunTag

        params: dict[str, str] = {}
        tags: list[Any] = []
        if name in self._open_runs:
            run = self._open_runs[name]
        else:
            run, params = self._open(name, trial)
        sent = self._sent.setdefault(name, set())
        unsent = [committed.commit for committed in trial.commits if committed.commit not in sent]
        again = trial.redone or trial.scratch > 0  # recomputed steps have other timestamps
        metrics = [metric for key in unsent for metric in self._records(run, key, fresh=not again)]
        summary = {metric: sum(values) / len(values) for metric, values in trial.metrics.items() if values}
        if trial.ended:
            metrics += self._ends(trial, summary)
            tags = [RunTag("olfl.state", trial.state), RunTag("olfl.report", json.dumps(summary)[:8000])]
        self._log(run, params, tags, metrics)
        self._open_runs[name] = run
        sent.update(unsent)
        if trial.ended:
            self._send_end(run, trial, summary)
            del self._open_runs[name], self._sent[name]
        elif trial.state == "stopped":
            self._client.set_terminated(run, "KILLED")
            del self._open_runs[name]

    def _made_parent(self) -> str:
        """The parent run's id; it has the spec, and with its storage it leads from a study's name to where it is kept."""
        parent = self._run_of(PARENT, self._tags(PARENT), self._spec.name)
        self._client.set_tag(parent, STORAGE_TAG, self._study.storage.url.rpartition("/")[0])
        self._client.log_text(parent, self._spec.model_dump_json(indent=2, by_alias=True), "spec.json")
        return parent

    def _adopt(self, runs: Iterable[Any]) -> None:
        """Make the trials' runs children of the parent run."""
        for run in runs:
            if run.data.tags[TRIAL_TAG] != PARENT and run.data.tags.get(PARENT_TAG) != self._parent:
                self._client.set_tag(run.info.run_id, PARENT_TAG, self._parent)

    def _ends(self, trial: TrialState, summary: Mapping[str, float]) -> list[Any]:
        """The reported values as `result/...`, and those of the last evaluation as `last/...`: of `selection/error` the
        metrics `result/selection_error` and `last/selection_error`. A failed trial has none: it may be tried again.
        """
        from mlflow.entities import Metric

        if trial.state == "failed" or trial.ended_at is None:
            return []
        values = {f"result/{name.replace('/', '_')}": value for name, value in summary.items()}
        for committed in reversed(trial.commits):
            rows = [
                row for row in self._study.records(committed.commit) if row["metric"].startswith(names.SELECTION_PREFIX)
            ]
            if rows:
                step = max(row["step"] for row in rows)
                last: dict[str, list[float]] = {}
                for row in rows:
                    if row["step"] == step:
                        last.setdefault(f"last/{row['metric'].replace('/', '_')}", []).append(row["value"])
                values |= {name: sum(own) / len(own) for name, own in last.items()}
                break
        return [Metric(as_key(name), value, int(trial.ended_at * 1000), trial.step) for name, value in values.items()]

    def _tags(self, name: str) -> dict[str, str]:
        tags = {
            STUDY_TAG: self._spec.name,
            IDENTITY_TAG: self._identity,
            TRIAL_TAG: name,
            "olfl.digest": self._spec.digest,
        }
        git = self._study.git_commit
        return {**tags, "olfl.git_commit": git} if git else tags

    def _log(self, run: str, params: Mapping[str, str], tags: list[Any], metrics: list[Any]) -> None:
        """Send everything in as few calls as MLflow's limits allow."""
        from mlflow.entities import Param

        for portion in in_batches(params):
            room = BATCH - len(portion) - len(tags)
            if portion or tags or metrics:
                made = [Param(key, value) for key, value in portion.items()]
                self._client.log_batch(run, metrics=metrics[:room], params=made, tags=tags)
            metrics, tags = metrics[room:], []
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])

    def _run_of(self, name: str, tags: dict[str, str], run_name: str) -> str:
        """The one run of a name, in state RUNNING.

        A lost response, or two concurrent drivers, may have created two: all drivers keep the earliest.
        """
        runs = self._there.pop(name, [])
        if not runs:
            self._client.create_run(self._experiment, tags=tags, run_name=run_name)
            runs = list(found(self._client, self._experiment, self._identity, name))
        first, *others = runs
        for other in others:
            self._client.delete_run(other.info.run_id)
        if first.info.status != "RUNNING":
            self._client.update_run(first.info.run_id, "RUNNING")
        return str(first.info.run_id)

    def _open(self, name: str, trial: TrialState) -> tuple[str, dict[str, str]]:
        """A trial's run, and the params that it should have."""
        tags = {
            **self._tags(name),
            PARENT_TAG: self._parent,
            "olfl.arm": trial.id.arm,
            "olfl.ordinal": trial.id.name,
            "olfl.role": "confirm" if trial.id.confirming else "search",
        }
        if trial.filtered:
            counts = Counter(str(one["filter"]) for one in trial.filtered)
            tags["olfl.filtered"] = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        if name in self._tried:  # created by this driver, or possibly, if the response was lost
            self._there[name] = list(found(self._client, self._experiment, self._identity, name))
        self._tried.add(name)
        run = self._run_of(name, tags, name)
        config = self._study.config(trial)
        self._client.log_text(run, config.model_dump_json(indent=2, by_alias=True), "config.json")
        self._log_dataset(run, trial.id.arm)
        return run, as_params(config.model_dump(mode="json", by_alias=True))

    def _log_dataset(self, run: str, arm: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        note = self._study.datasets.get(arm)
        if note is None:
            return
        dataset = Dataset(
            name=note["name"],
            digest=note["digest"],
            source_type="local",
            source=json.dumps({"source": note["source"]}),
            profile=json.dumps({"num_rows": note["rows"], "classes": note["classes"][:100]}),
        )
        self._client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _records(self, run: str, key: str, *, fresh: bool) -> list[Any]:
        """Means over replicates as metrics, with standard deviations as `..._sd`; `fresh`: none of them exists yet."""
        from mlflow.entities import Metric

        groups: dict[tuple[int, str, int], list[float]] = {}
        for row in self._study.records(key):
            groups.setdefault((row["step"], row["metric"], row["time_ms"]), []).append(row["value"])
        metrics = []
        for (step, metric, time_ms), values in groups.items():
            mean = sum(values) / len(values)
            metrics.append(Metric(metric, mean, time_ms, step))
            if len(values) > 1:
                sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
                metrics.append(Metric(f"{metric}_sd", sd, time_ms, step))
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
            self._send_learned(run, trial.commits[-1].commit)
        if self._models and trial.id.confirming and trial.state == "finished":
            self._send_model(run, trial)
        if trial.cause:
            self._client.log_text(run, trial.cause, "cause.txt")
        result = {"state": trial.state, "report": summary, "replicates": dict(trial.metrics)}
        self._client.log_dict(run, result, "result.json")
        assert trial.ended_at is not None
        self._client.set_terminated(run, STATUS[trial.state], int(trial.ended_at * 1000))

    def _send_model(self, run: str, trial: TrialState) -> None:
        """Upload a trained model; a tag says why where there is none."""
        if self._study.model is None:
            return
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / MODEL
            try:
                write_model(self._study.model(trial), folder)
            except Exception as error:  # of a user's builder or forward: it must not keep the run from its end
                reason = without_secrets(str(error)).strip() or type(error).__name__
                self._client.set_tag(run, "olfl.no_model", reason.splitlines()[0][:5000])
                return
            self._client.log_artifacts(run, str(folder), MODEL)

    def _send_learned(self, run: str, key: str) -> None:
        """Upload a learnable's files: a learned loss to the folder `learned_loss`, anything else to `learnable`."""
        try:
            files = left_by_learnable(self._study.storage, read_commit(self._study.storage, key))
        except DataError:
            return
        with tempfile.TemporaryDirectory() as scratch:
            for name, data in files.items():
                (Path(scratch) / name).write_bytes(data)
            if files:
                loss = all(name.startswith("learned_loss.") for name in files)
                self._client.log_artifacts(run, scratch, "learned_loss" if loss else "learnable")
