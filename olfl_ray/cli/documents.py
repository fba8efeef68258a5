"""What `--json` prints: one document per command, as docs/json.md describes it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olfl_ray.cli.output import out

if TYPE_CHECKING:
    from olfl_ray.analysis import ArmResult
    from olfl_ray.driver import StudyResult
    from olfl_ray.remote import Standing, Submission
    from olfl_ray.study import Plan, Study, Trial
    from olfl_ray.study.transfer import Transfer
    from olfl_ray.trial import Progress

__all__ = [
    "arm_document",
    "comparison_document",
    "diff_document",
    "plan_document",
    "print_json",
    "result_document",
    "standing_document",
    "submission_document",
    "transfer_document",
    "trial_document",
    "trial_run_document",
]


def print_json(document: Any) -> None:
    """Print one document on standard output.

    Args:
        document: Plain values, mappings, sequences, dataclasses, times and paths.
    """
    text = json.dumps(_plain(document), indent=2, allow_nan=False)
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    """JSON values: numbers that JSON lacks (NaN, infinity) become null, times ISO 8601 in UTC."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):  # a scalar of NumPy
        return _plain(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def standing_document(standing: Standing) -> dict[str, Any]:
    """One study of `olfl sweep list`."""
    return {
        "study": standing.name,
        "status": standing.state,
        "ended": standing.ended,
        "trials": None if standing.ended is None else standing.trials,
        "attempts": standing.attempts,
        "metric": standing.metric or None,
        "best": standing.best,
        "value": standing.value,
        "created_at": _moment(standing.created),
        "changed_at": _moment(standing.changed),
        "digest": standing.digest or None,
        "problem": standing.problem or None,
    }


def result_document(result: StudyResult) -> dict[str, Any]:
    """The result of a study: `olfl sweep run`, `resume`, `retry`, `extend`."""
    trials = result.state.trials.values()
    return {
        "study": result.spec.name,
        "finished": result.finished,
        "stopped": result.stopped,
        "nothing_to_do": result.nothing_to_do,
        "ended": sum(trial.ended for trial in trials),
        "metric": result.spec.search.metric,
        "goal": result.spec.search.goal,
        "arms": [arm_document(arm) for arm in result.arms],
        "failures": [{"cause": cause, "trials": names} for cause, names in result.state.failures.items()],
        "report": result.report,
        "tracking": result.tracking,
        "undelivered": result.undelivered,
        "problem": result.problem or None,
    }


def arm_document(result: ArmResult) -> dict[str, Any]:
    """An arm's winner on fresh seeds, and its comparison with the baseline."""
    test = result.test
    return {
        "arm": result.arm,
        "search_states": result.trials,
        "confirming_states": result.confirming,
        "best": result.best,
        "settings": result.best_params,
        "value": result.selection_value,
        "test": {
            "metric": f"test/{test.metric}",
            "goal": test.goal,
            "n": test.n,
            "mean": test.mean,
            "sd": test.sd,
            "trivial": test.trivial,
            "seeds": list(test.values),
            "values": list(test.values.values()),
        },
        "difference": test.difference,
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """What a study would do: `olfl sweep run --dry-run`."""
    return {
        "study": plan.spec.name,
        "digest": plan.spec.digest,
        "spec": plan.spec.model_dump(mode="json", by_alias=True),
        "arms": [{"arm": arm, "trials": count, "points": plan.points[arm]} for arm, count in plan.trials.items()],
        "notes": plan.notes,
        "data": plan.data,
    }


def submission_document(submission: Submission, address: str) -> dict[str, Any]:
    """The result of a submission: `olfl sweep submit`, and `resume`, `retry`, `extend` with `--address`."""
    attempt = submission.attempt
    return {
        "study": attempt.study,
        "attempt": attempt.number,
        "job": attempt.id,
        "address": address,
        "state": attempt.state,
        "exit_code": attempt.exit_code,
        "attached": submission.attached,
        "note": submission.note or None,
    }


def comparison_document(a: Study, b: Study, arms: Mapping[str, str] | None) -> dict[str, Any]:
    """Two studies: `olfl sweep compare`."""
    from olfl_ray.study.comparison import compared, spread

    rows = [
        {
            "arm": one.arm,
            "other_arm": one.other_arm,
            "metric": one.metric,
            "goal": one.goal,
            "a": spread(one.a),
            "b": spread(one.b),
            "difference": None
            if one.difference is None
            else {key: getattr(one.difference, key) for key in ("n", "mean", "sd", "low", "high", "detectable", "p")},
            "unpaired": one.unpaired,
        }
        for one in compared(a, b, arms)
    ]
    settings = [{"name": name, "a": row["a"], "b": row["b"]} for name, row in a.diff(b).iterrows()]
    return {"a": a.name, "b": b.name, "arms": rows, "settings": settings}


def transfer_document(transfer: Transfer) -> dict[str, Any]:
    """A study's losses on other tasks: `olfl sweep transfer`."""
    from olfl_ray.analysis.transfer import CONTROLS
    from olfl_ray.study.comparison import spread

    studies = {target: study.name for target, study in transfer.studies.items()}
    cells = [
        {
            "loss": cell.loss,
            "target": cell.target,
            "metric": cell.metric,
            "goal": cell.goal,
            "test": spread(cell.values),
            "controls": [
                {
                    "arm": control,
                    "mean": cell.levels[control],
                    "difference": cell.against.get(control),
                    "holm": cell.holm.get(control),
                    "gain_percent": cell.gain(control),
                }
                for control in CONTROLS
                if control in cell.levels
            ],
        }
        for cell in transfer.cells
    ]
    return {"study": transfer.source, "losses": transfer.losses, "studies": studies, "cells": cells}


def trial_document(trial: Trial, *, config: bool = False) -> dict[str, Any]:
    """A trial: `olfl trial list`; with its complete settings `olfl trial show`.

    Args:
        trial: The trial.
        config: Whether to add what `olfl trial show` has.
    """
    record = trial.record
    found = {
        "trial": trial.name,
        "arm": trial.arm,
        "confirming": trial.confirming,
        "state": trial.state,
        "step": trial.step,
        "value": trial.value,
        "attempts": record.attempt,
        "seconds": trial.seconds,
        "settings": trial.settings,
        "metrics": trial.metrics,
        "cause": None if trial.cause is None else trial.cause.partition("\n")[0],
    }
    if not config:
        return found
    return {
        "study": trial.study.name,
        **found,
        "cause": trial.cause,
        "seeds": trial.seeds,
        "replicates": record.metrics,
        "proposed_at": _moment(record.proposed_at),
        "began_at": _moment(record.began_at),
        "ended_at": _moment(record.ended_at),
        "config": trial.config.model_dump(mode="json", by_alias=True),
    }


def diff_document(a: Trial, b: Trial) -> dict[str, Any]:
    """Two trials: `olfl trial diff`."""
    rows = [{"name": name, **row} for name, row in a.diff(b).to_dict("index").items()]
    return {"a": f"{a.study.name}/{a.name}", "b": f"{b.study.name}/{b.name}", "rows": rows}


def trial_run_document(progresses: Sequence[Progress], failed: str | None) -> dict[str, Any]:
    """What a trial recorded: `olfl trial run`; each metric as its mean over replicates."""
    records = [record for progress in progresses for record in progress.records]
    last = progresses[-1] if progresses else None
    report = {} if last is None else last.report
    return {
        "records": [
            {"step": record.step, "metrics": {name: record.mean(name) for name in sorted(record.metrics)}}
            for record in records
        ],
        "outcome": "failed" if failed is not None else None if last is None else last.outcome,
        "metrics": {name: sum(values) / len(values) for name, values in report.items()},
        "cause": failed,
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
