"""Audit of MLflow's runs one by one: identity, status, points per step, artifacts; and no change to other runs."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import stdev
from typing import Any

from olfl_ray.analysis import records_table
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.storage import Storage

__all__ = ["Runs", "fingerprints", "read_runs"]

STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}
IDENTITY = "olfl.identity"
"""The tag that identifies a study's runs."""
ARTIFACTS = ("config.json", "result.json")
PARENT_ARTIFACTS = ("spec.json", "report/index.html", "report/tables/trials.csv")
_Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A study's runs, compared with its ledger.

    Args:
        count: Number of runs of the study, including the parent.
        points: Number of their metric points.
        twice: More than one run per trial, more than one point per step, points without a record.
        missing: Missing runs, points and artifacts.
        running: Runs still RUNNING.
        wrong: Runs whose status differs from the ledger, and points whose value differs from the records.
    """

    count: int
    points: int
    twice: int
    missing: int
    running: int
    wrong: int


def read_runs(uri: str, experiment: str, state: StudyState, storage: Storage, report: Path) -> Runs:
    """Audit a study's runs.

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment.
        state: The study's state.
        storage: Its storage.
        report: Folder of its report.
    """
    client = _client(uri)
    runs = [run for run in _all_runs(client, experiment) if _is_of(run, state)]
    active = [run for run in runs if run.info.lifecycle_stage == "active"]
    tags = Counter(run.data.tags["olfl.trial"] for run in active)
    wanted = {"study": None, **{name: trial for name, trial in state.trials.items() if trial.ended}}
    points = twice = wrong = 0
    missing = len(wanted.keys() - tags.keys())
    for run in active:
        trial = wanted.get(run.data.tags["olfl.trial"])
        wrong += run.info.status != ("FINISHED" if trial is None else STATUS[trial.state])
        found = _delivered(client, run)
        expected = _recorded(storage, trial) if trial is not None else {}
        points += sum(len(values) for values in found.values())
        ends = {key for key in found if trial is None or key[0].startswith(("result/", "last/"))}  # not of a record
        twice += sum(len(values) - (key in expected or key in ends) for key, values in found.items())
        missing += len(expected.keys() - found.keys())
        wrong += sum(not _same(expected[key], values[-1]) for key, values in found.items() if key in expected)
        missing += len(set(ARTIFACTS if trial is not None else PARENT_ARTIFACTS) - _artifacts(client, run.info.run_id))
        if trial is None:
            wrong += not _same_report(client, run.info.run_id, report)
    return Runs(
        count=len(active),
        points=points,
        twice=twice + sum(count - 1 for count in tags.values()),
        missing=missing,
        running=sum(run.info.status == "RUNNING" for run in active),
        wrong=wrong,
    )


def fingerprints(uri: str, experiment: str, without: StudyState | None = None) -> dict[str, str]:
    """A digest of each run in MLflow, including deleted ones, by the run's id.

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment.
        without: A study whose own runs are omitted.
    """
    client = _client(uri)
    found = {}
    for run in _all_runs(client, experiment):
        if without is not None and _is_of(run, without):
            continue
        histories = {
            metric: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        inside = sorted(_artifacts(client, run.info.run_id))
        content = (dict(run.info), run.data.params, run.data.tags, histories, inside)
        found[str(run.info.run_id)] = sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return found


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return MlflowClient(uri)


def _all_runs(client: Any, experiment: str) -> list[Any]:
    from mlflow.entities import ViewType

    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    return list(client.search_runs([found.experiment_id], run_view_type=ViewType.ALL, max_results=50_000))


def _is_of(run: Any, state: StudyState) -> bool:
    """Whether a run belongs to a study, by its identity."""
    tags: Mapping[str, str] = run.data.tags
    return tags.get(IDENTITY) == state.identity


def _delivered(client: Any, run: Any) -> dict[_Key, list[float]]:
    """The values in a run for each metric and step; more than one if delivered twice."""
    found: defaultdict[_Key, list[float]] = defaultdict(list)
    for metric in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, metric):
            found[metric, point.step].append(point.value)
    return found


def _recorded(storage: Storage, trial: TrialState) -> dict[_Key, float]:
    """Mean and standard deviation over replicates of a trial's records, for each metric and step."""
    replicates: defaultdict[_Key, list[float]] = defaultdict(list)
    for row in records_table(storage, trial).to_pylist():
        replicates[row["metric"], row["step"]].append(row["value"])
    means = {key: sum(values) / len(values) for key, values in replicates.items()}
    spreads = {(f"{m}_sd", step): stdev(values) for (m, step), values in replicates.items() if len(values) > 1}
    return {**means, **spreads}


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))


def _artifacts(client: Any, run: str, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in client.list_artifacts(run, folder):
        found |= _artifacts(client, run, entry.path) if entry.is_dir else {entry.path}
    return found


def _same_report(client: Any, run: str, report: Path) -> bool:
    """Whether the report in a parent run equals the one in the study's folder."""
    name = "tables/trials.csv"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            kept = Path(client.download_artifacts(run, f"report/{name}", scratch)).read_bytes()
        except OSError:
            return False
    return kept == (report / name).read_bytes()
