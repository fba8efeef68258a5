"""What two homes and a tracking store hold after the same sweep: compared trial by trial, value by value."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from olfl_ray.analysis import final_table, records_table
from olfl_ray.ledger import Committed, Ended, Ledger, TrialState
from olfl_ray.records import names
from olfl_ray.storage import open_storage
from olfl_ray.study import Home, spec_of

__all__ = ["Audit", "audit"]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found of the disturbed sweep.

    Args:
        trials: Trials that ended.
        commits: Commits that the ledger noted.
        runs: MLflow runs, the parent's included.
        duplicates: Ends and commits noted twice, runs beyond one a trial, metric points delivered twice.
        lost: Trials of the undisturbed sweep that are not there, runs and metric points that are missing.
        running: Runs still RUNNING.
        difference: Trials and table rows that are not bit for bit those of the undisturbed sweep.
    """

    trials: int
    commits: int
    runs: int
    duplicates: int
    lost: int
    running: int
    difference: int

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, twice, running or different."""
        return not (self.duplicates or self.lost or self.running or self.difference)


def audit(calm: Path, wild: Path, uri: str, name: str = "chaos") -> Audit:
    """Compare a disturbed sweep with an undisturbed one.

    Args:
        calm: Home folder of the undisturbed sweep.
        wild: Home folder of the disturbed one.
        uri: MLflow tracking URI of the disturbed one.
        name: Name of both studies.
    """
    ledgers = [Ledger.load(open_storage(Home(home).study_folder(name))) for home in (calm, wild)]
    wanted, found = (_results(home, name, ledger) for home, ledger in zip((calm, wild), ledgers, strict=True))
    tables = [
        [{**asdict(row), "trials": {}} for row in final_table(spec_of(name, home=Home(home)), ledger.state)]
        for home, ledger in zip((calm, wild), ledgers, strict=True)
    ]
    events = ledgers[1].events
    ends = Counter(event.trial for event in events if isinstance(event, Ended))
    commits = Counter((event.trial, event.commit) for event in events if isinstance(event, Committed))
    runs = _Runs(uri, found, name)
    return Audit(
        trials=len(ends),
        commits=len(commits),
        runs=runs.count,
        duplicates=_beyond_one(ends) + _beyond_one(commits) + runs.twice,
        lost=len(wanted.keys() - found.keys()) + runs.missing,
        running=runs.running,
        difference=sum(wanted.get(trial) != result for trial, result in found.items())
        + sum(row != other for row, other in zip(*tables, strict=True)),
    )


def _beyond_one(counts: Counter[Any]) -> int:
    return sum(count - 1 for count in counts.values())


def _results(home: Path, name: str, ledger: Ledger) -> dict[str, Any]:
    """Each ended trial's settings, end and learning curves, without what measures the machine."""
    storage = open_storage(Home(home).study_folder(name))
    return {str(trial.id): _result(storage, trial) for trial in ledger.state.trials.values() if trial.ended}


def _result(storage: Any, trial: TrialState) -> dict[str, Any]:
    curves = [
        (row["step"], row["metric"], row["replicate"], row["value"])
        for row in records_table(storage, trial).to_pylist()
        if row["metric"] not in names.VOLATILE
    ]
    end = (trial.state, trial.step, trial.value, dict(trial.metrics), trial.cause)
    return {"params": dict(trial.params), "seeds": trial.seeds, "end": end, "curves": curves}


class _Runs:
    """What MLflow holds, against the results that it should hold."""

    def __init__(self, uri: str, results: dict[str, Any], name: str) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("olfl")
        assert experiment is not None
        runs = list(client.search_runs([experiment.experiment_id], f"tags.`olfl.study` = '{name}'", max_results=50_000))
        tags = Counter(run.data.tags["olfl.trial"] for run in runs)
        self.count = len(runs)
        self.running = sum(run.info.status == "RUNNING" for run in runs)
        self.twice = _beyond_one(tags)
        self.missing = len(({"study"} | results.keys()) - tags.keys())
        for run in runs:
            result = results.get(run.data.tags["olfl.trial"])
            if result is None:
                continue
            wanted = {(metric, step) for step, metric, _, _ in result["curves"]}
            for metric in {metric for metric, _ in wanted}:
                points = Counter(point.step for point in client.get_metric_history(run.info.run_id, metric))
                self.twice += _beyond_one(points)
                self.missing += len({step for other, step in wanted if other == metric} - points.keys())
