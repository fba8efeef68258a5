"""What the figures of a study show, as numbers: matplotlib and the report's page draw the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from olfl_ray.analysis.tables import confirmed, surfaces_table
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.records import names
from olfl_ray.spec import Parameter, StudySpec
from olfl_ray.storage import Storage

__all__ = ["Curve", "LossLines", "Read", "curves", "loss_lines", "recorded", "scaled", "with_axis", "with_value"]

Read = Callable[[TrialState], pa.Table]
"""Returns a trial's records (`olfl_ray.records.RECORDS`)."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric during training.

    Args:
        steps: Base steps, ascending.
        means: Mean at each step over confirming seeds, or else over the winner's replicates.
        sds: Standard deviation at each step; 0 for a single value.
        n: Number of values per step, at most.
    """

    steps: list[int]
    means: list[float]
    sds: list[float]
    n: int


@dataclass(frozen=True, kw_only=True)
class LossLines:
    """An arm's learned loss over the output, at some steps and targets.

    Args:
        steps: Base steps, ascending.
        targets: Targets, ascending.
        learned: Outputs and values by (step, target); the minimum of each line is 0, since a constant changes no gradient.
        task: The same of the task loss by target, times `scale`.
        scale: Factor that gives the task loss the final height of the learned loss, one for all targets: a factor only
            rescales the learning rate.
    """

    steps: list[int]
    targets: list[float]
    learned: Mapping[tuple[int, float], tuple[list[float], list[float]]]
    task: Mapping[float, tuple[list[float], list[float]]]
    scale: float


def curves(spec: StudySpec, state: StudyState, read: Read, metric: str) -> dict[str, Curve]:
    """Each arm's curve of a metric, over its confirming trials or else its winner; arms without a value are left out."""
    found = {}
    for arm in spec.arms:
        best = state.best(arm, spec.search.goal)
        trials = confirmed(spec, state, arm) or ([best] if best is not None else [])
        tables = [read(trial) for trial in trials]
        if not tables:
            continue
        rows = pa.concat_tables(tables)
        rows = rows.filter((pc.field("metric") == metric) & pc.is_finite(pc.field("value")))
        if rows.num_rows:
            spread = pc.VarianceOptions(ddof=1)
            wanted = [("value", "mean"), ("value", "stddev", spread), ("value", "count")]
            points = rows.group_by("step").aggregate(wanted).sort_by("step").to_pydict()
            found[arm] = Curve(
                steps=points["step"],
                means=points["value_mean"],
                sds=[sd if sd is not None and math.isfinite(sd) else 0.0 for sd in points["value_stddev"]],
                n=max(points["value_count"]),
            )
    return found


def recorded(spec: StudySpec, state: StudyState, read: Read, known: Collection[str]) -> list[str]:
    """Names of the metrics over steps that each arm's `curves` are of, other than known ones and those of the final test."""
    found: dict[str, None] = {}
    for arm in spec.arms:
        best = state.best(arm, spec.search.goal)
        trials = confirmed(spec, state, arm)[:1] or ([best] if best is not None else [])
        for name in read(trials[0])["metric"].unique().to_pylist() if trials else ():
            if name not in known and not name.startswith((names.TEST_PREFIX, names.TRIVIAL_PREFIX)):
                found[name] = None
    return list(found)


def loss_lines(spec: StudySpec, state: StudyState, storage: Storage, arm: str) -> LossLines | None:
    """The learned loss of an arm's first confirming trial, or else of its winner; None if there is none."""
    best = state.best(arm, spec.search.goal)
    trials = [*confirmed(spec, state, arm)[:1], *([best] if best is not None else [])]
    rows: list[dict[str, Any]] = next((found for found in (_surface(storage, trial) for trial in trials) if found), [])
    if not rows:
        return None
    targets = sorted({row["target"] for row in rows})
    steps = sorted({row["step"] for row in rows})
    learned = {(step, target): _line(rows, "learned", step, target) for step in steps for target in targets}
    task = {target: _line(rows, "task", steps[-1], target) for target in targets}
    height = max((value for target in targets for value in learned[steps[-1], target][1]), default=0.0)
    task_height = max((value for _, values in task.values() for value in values), default=0.0)
    scale = height / task_height if height > 0 and task_height > 0 else 1.0
    task = {target: (outputs, [scale * value for value in values]) for target, (outputs, values) in task.items()}
    return LossLines(steps=steps, targets=targets, learned=learned, task=task, scale=scale)


def with_value(state: StudyState, arm: str) -> list[TrialState]:
    """The ended search trials of an arm that have a finite value of the search metric."""
    return [t for t in state.search_trials(arm) if t.ended and t.value is not None and math.isfinite(t.value)]


def with_axis(spec: StudySpec, arm: str) -> dict[str, Parameter]:
    """The searched fields of an arm whose values have an order or a list: formulas have no axis."""
    return {name: one for name, one in spec.parameters_of(arm).items() if one.expression is None}


def scaled(parameter: Parameter, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Position of each value on an axis from 0 to 1 (NaN if the field was not searched), and the ticks of the axis."""
    if parameter.values is not None:
        texts = [str(_listed(value)) for value in parameter.values]
        texts += sorted({str(_listed(value)) for value in values if value is not None} - set(texts))
        place = {text: k / max(len(texts) - 1, 1) for k, text in enumerate(texts)}
        absent = "None" if None in parameter.values else ""
        return [place.get(str(_listed(value)) if value is not None else absent, math.nan) for value in values], [
            (height, text) for text, height in place.items()
        ]
    numbers = [value for value in values if isinstance(value, (int, float)) and (not parameter.log or value > 0)]
    ends = [bound for bound in (parameter.min, parameter.max) if bound is not None]
    low, high = min([*numbers, *ends]), max([*numbers, *ends])

    def scale(value: float) -> float:
        if parameter.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    ticks = [(scale(value), f"{value:.3g}") for value in (low, middle, high)]
    return [scale(value) if value in numbers else math.nan for value in values], ticks


def _surface(storage: Storage, trial: TrialState) -> list[dict[str, Any]]:
    return [row for row in surfaces_table(storage, trial).to_pylist() if row["replicate"] == 0]


def _line(rows: Sequence[Mapping[str, Any]], column: str, step: int, target: float) -> tuple[list[float], list[float]]:
    """Outputs, and a column's values above their minimum."""
    line = sorted((row["output"], row[column]) for row in rows if (row["step"], row["target"]) == (step, target))
    finite = [(output, value) for output, value in line if math.isfinite(value)]
    least = min((value for _, value in finite), default=0.0)
    return [output for output, _ in finite], [value - least for _, value in finite]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
