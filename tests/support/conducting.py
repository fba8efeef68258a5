"""A small study, and a worker's messages written by hand: no Ray, no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.ledger import Commit, Ledger, StopRequest, TrialState
from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.storage import open_storage
from olfl_ray.sweep import Conductor
from olfl_ray.worker import Message

SPEC: dict[str, Any] = {
    "name": "s",
    "task": {"dataset": "digits"},
    "learner": {"steps": 900, "optimizer": {"name": "sgd", "lr": 0.05}},
    "replicates": 2,
    "search": {
        "metric": "selection/error",
        "parameters": {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}},
        "pruner": {"name": "none"},
    },
    "arms": {
        "baseline": {"set": {"learner.method": "baseline"}, "trials": 3},
        "online": {"trials": 3, "parameters": {"meta.eta_online": {"min": 1e-6, "max": 1e-2, "log": True}}},
    },
    "confirm": {"seeds": 2},
    "concurrency": 2,
}


def study(**changes: Any) -> StudySpec:
    """The complete spec above with other top-level sections; the metric is the one that `send` reports."""
    spec = {**SPEC, **changes}
    return complete(
        parse_spec(json.dumps({**spec, "search": {"metric": "selection/error", **spec["search"]}}).encode())
    )


def send(
    conductor: Conductor, trial: TrialState | str, step: int, value: float, outcome: str | None = None, attempt: int = 1
) -> bool:
    """Send a conductor a worker's messages: a start, if it has not started, and a commit or its failure."""
    name = trial if isinstance(trial, str) else str(trial.id)
    now = conductor.state.trials[name]
    if not now.ended and (now.state != "running" or now.attempt < attempt):
        recorded = tuple(item.commit for item in now.commits)
        conductor.receive(Message(event="begun", trial=name, attempt=max(attempt, now.attempt + 1), chain=recorded))
        attempt = conductor.state.trials[name].attempt
    if outcome == "failed":
        return conductor.receive(Message(event="failed", trial=name, attempt=attempt, cause="boom"))
    report = {"selection/error": [value, value]}
    made = Commit(trial=name, attempt=attempt, position=step, step=step, outcome=outcome, report=report, parent=None)
    return conductor.receive(Message(event="commit", trial=name, attempt=attempt, commit=made))


def run_to_end(conductor: Conductor, value_of: Callable[[TrialState], float]) -> list[str]:
    """Run every trial, one at a time; returns their names in order."""
    order = []
    while (trial := conductor.next()) is not None:
        order.append(str(trial.id))
        send(conductor, trial, 900, value_of(trial), "finished")
    return order


@pytest.fixture
def conduct(tmp_path: Path) -> Callable[..., Conductor]:
    """A conductor for the ledger in a folder: the first call creates the study there, later ones resume it."""

    def start(spec: StudySpec, folder: str = "study", only: tuple[str, ...] | None = None) -> Conductor:
        storage = open_storage(tmp_path / folder)
        if not storage.keys("ledger/"):
            Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
        ledger = Ledger.load(storage)
        return Conductor(spec, ledger, StopRequest(storage, ledger.state.epoch), only=only)

    return start
