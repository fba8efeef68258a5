"""A study's tables as files: Markdown for people, CSV and Parquet for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from olfl_ray.analysis.facts import seconds_of
from olfl_ray.analysis.series import Read
from olfl_ray.analysis.tables import ArmResult
from olfl_ray.analysis.wording import cells_of, head_of
from olfl_ray.ledger import StudyState
from olfl_ray.records import RECORDS, to_parquet
from olfl_ray.spec import printable

__all__ = ["as_markdown", "table_files"]

_ARMS = pa.schema(
    [
        ("arm", pa.string()),
        ("trials", pa.string()),
        ("confirming", pa.string()),
        ("best", pa.string()),
        ("best_params", pa.string()),
        ("selection_value", pa.float64()),
        ("metric", pa.string()),
        ("goal", pa.string()),
        ("test_seeds", pa.list_(pa.int64())),
        ("test_values", pa.list_(pa.float64())),
        ("test_mean", pa.float64()),
        ("test_sd", pa.float64()),
        ("trivial", pa.float64()),
        ("no_better_than_trivial", pa.bool_()),
        ("primary", pa.string()),
        ("primary_mean", pa.float64()),
        ("primary_sd", pa.float64()),
        ("gradient_ratio", pa.float64()),
        ("gradient_cosine", pa.float64()),
        ("n", pa.int64()),
        *((f"difference_{name}", pa.float64()) for name in ("mean", "sd", "low", "high", "detectable", "p")),
        ("difference_n", pa.int64()),
        ("difference_baseline", pa.string()),
    ]
)
_TRIALS = pa.schema(
    [
        ("trial", pa.string()),
        ("arm", pa.string()),
        ("confirming", pa.bool_()),
        ("state", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("params", pa.string()),
        ("metrics", pa.string()),
        ("seeds", pa.list_(pa.int64())),
        ("attempt", pa.int64()),
        ("cause", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_CURVES = pa.schema([("arm", pa.string()), ("trial", pa.string()), *RECORDS])


def as_markdown(results: Sequence[ArmResult]) -> str:
    """The final table as Markdown."""
    head = head_of(results)
    rows = [head, ("---",) * len(head), *(cells_of(result) for result in results)]
    return "".join("| " + " | ".join(_cell(cell) for cell in row) + " |\n" for row in rows)


def _cell(text: str) -> str:
    """A Markdown cell with HTML, links and images escaped: its text may come from anyone."""
    text = escape(printable(text), quote=False).replace("|", r"\|").replace("](", r"]\(")
    return text.replace("\n", "<br>")


def table_files(results: Sequence[ArmResult], state: StudyState, read: Read) -> dict[str, bytes]:
    """The final table, all trials and all records, as files by name."""
    arms = [_arm_row(result) for result in results]
    trials = [
        {
            "trial": str(trial.id),
            "arm": trial.id.arm,
            "confirming": trial.id.confirming,
            "state": trial.state,
            "step": trial.step,
            "value": trial.value,
            "params": json.dumps(dict(trial.params), default=str),
            "metrics": json.dumps(dict(trial.metrics)),
            "seeds": list(trial.seeds),
            "attempt": trial.attempt,
            "cause": trial.cause,
            "seconds": seconds_of(trial),
        }
        for trial in state.trials.values()
    ]
    files = {"arms.md": as_markdown(results).encode()}
    for name, rows, schema in (("arms", arms, _ARMS), ("trials", trials, _TRIALS)):
        files[f"{name}.csv"] = _csv(rows, schema.names).encode()
        files[f"{name}.parquet"] = to_parquet(pa.Table.from_pylist(rows, schema))
    curves = []
    for trial in state.trials.values():
        table = read(trial)
        for position, value in enumerate((trial.id.arm, str(trial.id))):
            table = table.add_column(position, _CURVES[position], pa.array([value] * table.num_rows, pa.string()))
        curves.append(table)
    combined = pa.concat_tables(curves) if curves else _CURVES.empty_table()
    return {**files, "curves.parquet": to_parquet(combined)}


def _arm_row(result: ArmResult) -> dict[str, Any]:
    d, test, primary = result.test.difference, result.test, result.primary
    row: dict[str, Any] = {name: getattr(result, name, None) for name in _ARMS.names}
    row |= {name: json.dumps(dict(row[name]), default=str) for name in ("trials", "confirming", "best_params")}
    row |= {"metric": test.metric, "goal": test.goal, "test_mean": test.mean, "test_sd": test.sd}
    row |= {"test_seeds": list(test.values), "test_values": list(test.values.values())}
    row |= {"trivial": test.trivial, "no_better_than_trivial": test.no_better_than_trivial}
    if primary is not None:
        row |= {"primary": primary.metric, "primary_mean": primary.mean, "primary_sd": primary.sd}
    if result.gradient is not None:
        row |= {"gradient_ratio": result.gradient.ratio, "gradient_cosine": result.gradient.cosine}
    compared = [name for name in _ARMS.names if name.startswith("difference_")]
    return row | {name: None if d is None else getattr(d, name.removeprefix("difference_")) for name in compared}


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_field(row[name]) for name in columns])
    return text.getvalue()


def _field(value: Any) -> Any:
    """A CSV field in which no text is HTML or a spreadsheet formula. The Parquet file next to it has every text unchanged."""
    if isinstance(value, list):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = escape(printable(value), quote=False)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
