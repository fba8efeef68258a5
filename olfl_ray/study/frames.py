"""A study as tables: pandas DataFrames, and Arrow where they are large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis import ArmResult, mean, records_table, surfaces_table
from olfl_ray.errors import StudyError
from olfl_ray.ledger import StudyState, TrialId, TrialState
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Rows", "arms_frame", "curves_of", "seconds_of", "surfaces_of", "trials_frame"]

_NOBODY = TrialState(id=TrialId("none", "0"), params={}, seeds=(), proposed_at=0.0)
"""A trial without records: its table has the columns of all others."""


def arms_frame(results: Iterable[ArmResult]) -> pd.DataFrame:
    """One row per arm: its winner on fresh seeds, and its paired comparison with the baseline; NaN where there is none.

    Columns: trials, failed, best, selection, metric, mean, sd, n, difference, low, high, p, detectable, trivial.
    """
    import pandas as pd

    rows = []
    for result in results:
        found, test = result.test.difference, result.test
        rows.append(
            {
                "arm": result.arm,
                "trials": sum(result.trials.values()),
                "failed": result.trials.get("failed", 0) + result.confirming.get("failed", 0),
                "best": result.best,
                "selection": _number(result.selection_value),
                "metric": f"test/{test.metric}",
                "mean": _number(test.mean),
                "sd": _number(test.sd),
                "n": test.n,
                "difference": math.nan if found is None else found.mean,
                "low": math.nan if found is None else found.low,
                "high": math.nan if found is None else found.high,
                "p": math.nan if found is None else found.p,
                "detectable": math.nan if found is None else found.detectable,
                "trivial": _number(test.trivial),
            }
        )
    return pd.DataFrame(rows).set_index("arm")


def trials_frame(spec: StudySpec, state: StudyState, arm: str | None = None) -> pd.DataFrame:
    """One row per trial, in the order of their proposal; the index is the trial's name.

    Columns: arm, confirming, state, step, value (of the search metric), attempts, seconds, cause; then each searched field, by
    its dotted name; then each metric of the result, mean over replicates.

    Args:
        spec: The study.
        state: Its state.
        arm: Only this arm's; None: all.
    """
    import pandas as pd

    trials = [trial for trial in state.trials.values() if arm in (None, trial.id.arm)]
    fields = {name: None for own in spec.arms for name in spec.parameters_of(own)}
    metrics = {name: None for trial in trials for name in trial.metrics}
    columns = ("arm", "confirming", "state", "step", "value", "attempts", "seconds", "cause")
    rows = [
        {
            "arm": trial.id.arm,
            "confirming": trial.id.confirming,
            "state": trial.state,
            "step": trial.step,
            "value": _number(trial.value),
            "attempts": trial.attempt,
            "seconds": seconds_of(trial),
            "cause": (trial.cause or "").partition("\n")[0] or None,
            **{name: trial.params.get(name) for name in fields},
            **{name: mean(trial.metrics[name]) if trial.metrics.get(name) else math.nan for name in metrics},
        }
        for trial in trials
    ]
    index = pd.Index([str(trial.id) for trial in trials], name="trial", dtype=str)
    return pd.DataFrame(rows, index=index, columns=[*columns, *fields, *metrics])


def seconds_of(trial: TrialState) -> float:
    """From a trial's first attempt to its end, in seconds; NaN before."""
    return math.nan if trial.began_at is None or trial.ended_at is None else trial.ended_at - trial.began_at


@dataclass(frozen=True)
class Rows:
    """What trials recorded, one row per value. Call it for a DataFrame; `to_arrow` gives the same without a copy.

    Args:
        read: Gives the Arrow table of a trial.
        state: Gives the study's state.
        what: For `repr`.
    """

    read: Callable[[TrialState], pa.Table]
    state: Callable[[], StudyState]
    what: str

    def __call__(
        self, trial: str | Iterable[str] | None = None, *, arm: str | None = None, metric: str | None = None
    ) -> pd.DataFrame:
        """The rows as a DataFrame; texts are categories.

        Args:
            trial: Only these trials: `ARM/ORDINAL`, or several.
            arm: Only this arm's trials.
            metric: Only this metric (of curves).

        Raises:
            StudyError: There is no such trial or arm.
        """
        found: pd.DataFrame = self.to_arrow(trial, arm=arm, metric=metric).to_pandas()
        return found

    def to_arrow(
        self, trial: str | Iterable[str] | None = None, *, arm: str | None = None, metric: str | None = None
    ) -> pa.Table:
        """The same as an Arrow table."""
        import pyarrow as pa
        import pyarrow.compute as pc

        study = self.state()
        wanted = None if trial is None else [trial] if isinstance(trial, str) else list(trial)
        for what, asked, there in (
            ("trial", wanted or [], study.trials),
            ("arm", [] if arm is None else [arm], study.spec["arms"]),
        ):
            if unknown := [name for name in asked if name not in there]:
                raise StudyError(
                    f"{what}: study {study.name!r} has no {what} {unknown[0]!r}; see study.trials() for names"
                )
        tables = []
        for name, state in study.trials.items():
            if (wanted is not None and name not in wanted) or arm not in (None, state.id.arm):
                continue
            own = self.read(state)
            if metric is not None:
                own = own.filter(pc.equal(own["metric"], metric))
            tables.append(_marked(own, name, state))
        if not tables:
            return _marked(self.read(_NOBODY), "", _NOBODY)[:0]
        return pa.concat_tables(tables).unify_dictionaries()

    def __repr__(self) -> str:
        return f"<{self.what}: call it for a DataFrame, or .to_arrow()>"


def curves_of(storage: Storage, state: Callable[[], StudyState]) -> Rows:
    """Every metric of every evaluation: trial, arm, confirming, step, metric, replicate, value, time."""

    def read(trial: TrialState) -> pa.Table:
        import pyarrow as pa

        table = records_table(storage, trial)
        time = table["time_ms"].cast(pa.timestamp("ms", tz="UTC"))
        table = table.drop_columns("time_ms").append_column("time", time)
        return table.set_column(
            table.schema.get_field_index("metric"), "metric", table["metric"].dictionary_encode().combine_chunks()
        )

    return Rows(read, state, "curves of a study")


def surfaces_of(storage: Storage, state: Callable[[], StudyState]) -> Rows:
    """The learned losses on their grids: trial, arm, confirming, step, replicate, target, output, learned, task."""
    return Rows(lambda trial: surfaces_table(storage, trial), state, "surfaces of a study")


def _marked(table: pa.Table, name: str, trial: TrialState) -> pa.Table:
    """A trial's rows behind columns that name it."""
    import pyarrow as pa

    zeros = pa.array([0] * len(table), pa.int32())
    columns: dict[str, Any] = {
        "trial": pa.DictionaryArray.from_arrays(zeros, pa.array([name], pa.string())),
        "arm": pa.DictionaryArray.from_arrays(zeros, pa.array([trial.id.arm], pa.string())),
        "confirming": pa.array([trial.id.confirming] * len(table), pa.bool_()),
    }
    return pa.table({**columns, **{field: table[field] for field in table.column_names}})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
