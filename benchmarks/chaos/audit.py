"""Audit of two homes and a tracking store after the same sweep: compared trial by trial, run by run, value by value."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.chaos.runs import read_runs
from olfl_ray.analysis import final_table, records_table
from olfl_ray.ledger import Committed, Ended, Ledger, Reopened, StudyState, TrialState
from olfl_ray.records import names
from olfl_ray.storage import Storage
from olfl_ray.study import Home, Study
from olfl_ray.tracking.mlflow import experiment_of

__all__ = ["Audit", "audit"]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The audit of a disturbed sweep.

    Args:
        trials: Number of ended trials.
        commits: Number of commits in the ledger.
        runs: Number of MLflow runs, including the parent.
        points: Number of metric points of those runs.
        duplicates: Ends and commits recorded twice, more than one run per trial, more than one metric point per step.
        lost: Missing trials of the undisturbed sweep; missing runs, metric points and artifacts.
        running: Runs still RUNNING.
        wrong: Runs whose status or values differ from the ledger, and reports older than the last trial.
        difference: Trials and table rows that are not bit for bit equal to those of the undisturbed sweep.
    """

    trials: int
    commits: int
    runs: int
    points: int
    duplicates: int
    lost: int
    running: int
    wrong: int
    difference: int

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, duplicated, running, wrong or different."""
        return not (self.duplicates or self.lost or self.running or self.wrong or self.difference)


def audit(
    reference: Path, disturbed: Path, uri: str, name: str = "chaos", *, reference_name: str | None = None
) -> Audit:
    """Compare a disturbed sweep with an undisturbed one.

    Args:
        reference: Home folder of the undisturbed sweep.
        disturbed: Home folder of the disturbed one.
        uri: MLflow tracking URI of the disturbed one.
        name: The study's name.
        reference_name: The undisturbed study's name, if it differs.
    """
    wanted, found = _Study(reference, reference_name or name), _Study(disturbed, name)
    ends = Counter(event.trial for event in found.ledger.events if isinstance(event, Ended))
    ends.subtract(event.trial for event in found.ledger.events if isinstance(event, Reopened))
    commits = Counter((event.trial, event.commit) for event in found.ledger.events if isinstance(event, Committed))
    report = Home(disturbed).report_folder(name)
    runs = read_runs(uri, experiment_of(found.spec), found.ledger.state, found.storage, report)
    results, others = wanted.results(), found.results()
    return Audit(
        trials=len(others),
        commits=len(commits),
        runs=runs.count,
        points=runs.points,
        duplicates=_beyond_one(ends) + _beyond_one(commits) + runs.twice,
        lost=len(results.keys() - others.keys()) + runs.missing,
        running=runs.running,
        wrong=runs.wrong + (not _is_current(report, found.ledger.state)),
        difference=sum(results.get(trial) != result for trial, result in others.items())
        + sum(row != other for row, other in zip(wanted.table(), found.table(), strict=True)),
    )


class _Study:
    """A study in a home folder."""

    def __init__(self, home: Path, name: str) -> None:
        self.spec = Study.open(name, home=home).spec
        self.storage = Home(home).storage(name)
        self.ledger = Ledger.load(self.storage)

    def results(self) -> dict[str, Any]:
        """Each ended trial's settings, end and learning curves, without machine metrics."""
        ended = (trial for trial in self.ledger.state.trials.values() if trial.ended)
        return {str(trial.id): _result(self.storage, trial) for trial in ended}

    def table(self) -> list[dict[str, Any]]:
        """The final table."""
        return [{**asdict(row), "trials": {}} for row in final_table(self.spec, self.ledger.state)]


def _beyond_one(counts: Counter[Any]) -> int:
    return sum(max(0, count - 1) for count in counts.values())


def _result(storage: Storage, trial: TrialState) -> dict[str, Any]:
    curves = [
        (row["step"], row["metric"], row["replicate"], row["value"])
        for row in records_table(storage, trial).to_pylist()
        if row["metric"] not in names.VOLATILE
    ]
    end = (trial.state, trial.step, trial.value, dict(trial.metrics), trial.cause)
    dropped = [dict(one) for one in trial.filtered]
    return {"params": dict(trial.params), "seeds": trial.seeds, "end": end, "curves": curves, "dropped": dropped}


def _is_current(report: Path, state: StudyState) -> bool:
    """Whether there is a report that is newer than the last trial's end."""
    if not (report / "index.html").exists():
        return False
    table = pq.read_table(report / "tables" / "trials.parquet")
    shown = dict(zip(table["trial"].to_pylist(), table["state"].to_pylist(), strict=True))
    return shown == {name: trial.state for name, trial in state.trials.items()}
