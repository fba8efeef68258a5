"""A small study, and a worker's commits made by hand: no Ray, no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from olfl_ray.ledger import Commit, TrialState
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.sweep import Conductor

SPEC: dict[str, Any] = {
    "name": "s",
    "task": {"dataset": "digits"},
    "learner": {"steps": 900, "optimizer": {"name": "sgd", "lr": 0.05}},
    "replicates": 2,
    "search": {
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
    """The spec above with other top-level sections."""
    return parse_spec(json.dumps({**SPEC, **changes}).encode())


def commit(trial: TrialState | str, step: int, value: float, outcome: str | None = None, attempt: int = 1) -> Commit:
    """What a worker reports."""
    name = trial if isinstance(trial, str) else str(trial.id)
    report = {"selection/error": [value, value]}
    cause = "boom" if outcome == "failed" else None
    return Commit(
        trial=name,
        attempt=attempt,
        position=step,
        step=step,
        outcome=outcome,
        report=report,
        parent=None,
        cause=cause,
    )


def run_to_end(conductor: Conductor, value_of: Callable[[TrialState], float]) -> list[str]:
    """Run every trial, one at a time; gives their names in order."""
    order = []
    while (trial := conductor.next()) is not None:
        order.append(str(trial.id))
        conductor.commit(commit(trial, 900, value_of(trial), "finished"))
    return order
