"""A study without Ray or training: its ledger and its trials' commits are written directly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from olfl_ray.tracking import TrackedStudy

__all__ = ["METRIC", "HandMadeStudy"]

METRIC = "selection/error"
SPEC: dict[str, Any] = {
    "name": "made",
    "task": {"dataset": "digits"},
    "search": {"metric": METRIC, "parameters": {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}},
    "arms": {"online": {"trials": 3}},
}


class HandMadeStudy:
    """A study in a folder. Two of them have the same spec and name, but different identities.

    Args:
        folder: An empty folder.
        home: The home folder that a tracker receives.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        spec = StudySpec.model_validate(SPEC)
        self.storage = LocalStorage(folder)
        self._ledger = Ledger.create(
            self.storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {}
        )
        home.mkdir(parents=True, exist_ok=True)
        self.tracked = TrackedStudy(spec=spec, storage=self.storage, home=home)

    @property
    def state(self) -> StudyState:
        """The state of the study."""
        return self._ledger.state

    def propose(self, name: str) -> None:
        """Plan a trial."""
        self._ledger.append(Proposed(trial=name, params={"learner.optimizer.lr": 0.01}, seeds=[1]))

    def run(self, name: str, steps: Sequence[int], end: str | None = None) -> None:
        """Start or resume a trial, commit at each step, and end it: finished, pruned, diverged, failed, stopped or not at all."""
        if name not in self.state.trials:
            self.propose(name)
        attempt = self.state.trials[name].attempt + 1
        self._ledger.append(Began(trial=name, attempt=attempt))
        for step in steps:
            record = Record(
                step=step, time_ms=1_700_000_000_000 + 1000 * attempt + step, metrics={METRIC: (value_at(step),)}
            )
            made = Commit(trial=name, attempt=attempt, position=step, step=step, outcome=None, report={}, parent=None)
            made = write_commit(self.storage, made, {"records.parquet": to_parquet(records_to_table([record]))})
            values = {METRIC: value_at(step)}
            self._ledger.append(
                Committed(trial=name, attempt=attempt, commit=made.key, step=step, value=values[METRIC], values=values)
            )
        if end == "stopped":
            self._ledger.append(Stopped(trial=name))
        elif end is not None:
            last = self.state.trials[name].step
            cause, value = "ValueError: boom" if end == "failed" else None, value_at(last)
            self._ledger.append(
                Ended(trial=name, state=end, step=last, value=value, metrics={METRIC: [value]}, cause=cause)  # type: ignore[arg-type]
            )

    def reopen(self, name: str) -> None:
        """Reopen a failed trial."""
        self._ledger.append(Reopened(trial=name))


def value_at(step: int) -> float:
    """The metric's value at a step."""
    return step / 1000
