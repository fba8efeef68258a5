"""What a study found, as rows: each arm's winner on fresh seeds beside the baseline, and the records of each trial."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from olfl_ray.analysis.statistics import Difference, mean, paired, sd
from olfl_ray.errors import DataError
from olfl_ray.ledger import StudyState, TrialState, read_commit, read_file
from olfl_ray.records import RECORDS, SURFACES, from_parquet, names
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

__all__ = [
    "ArmResult",
    "baseline_arm",
    "confirmed",
    "final_table",
    "records_table",
    "surfaces_table",
    "values_on_test",
]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm's outcome.

    Args:
        arm: The arm.
        trials: Number of search trials by state.
        confirming: Number of confirming trials by state.
        best: Id of the winner; None where no search trial finished.
        best_params: What the winner sets.
        selection_value: The winner's search metric.
        test_seeds: Each confirming seed that gave a test error.
        test_values: Test error on each of those seeds.
        test_mean: Their mean; None where there are none.
        test_sd: Their standard deviation; None below two.
        test_rmse: Mean and standard deviation of the root mean squared error in the target's own units; None for
            classification, the second None below two seeds.
        difference: Paired comparison with the baseline; None for the baseline itself and below two common seeds.
    """

    arm: str
    trials: Mapping[str, int]
    confirming: Mapping[str, int]
    best: str | None
    best_params: Mapping[str, Any]
    selection_value: float | None
    test_seeds: tuple[int, ...]
    test_values: tuple[float, ...]
    test_mean: float | None
    test_sd: float | None
    test_rmse: tuple[float, float | None] | None
    difference: Difference | None

    @property
    def n(self) -> int:
        """Number of confirming seeds that gave a test error."""
        return len(self.test_values)


def final_table(spec: StudySpec, state: StudyState) -> list[ArmResult]:
    """One result an arm, in the spec's order."""
    values = {arm: values_on_test(spec, state, arm, names.TEST_ERROR) for arm in spec.arms}
    baseline = baseline_arm(spec)
    return [_result(spec, state, arm, values, baseline) for arm in spec.arms]


def baseline_arm(spec: StudySpec) -> str | None:
    """The arm named `baseline`, else the first one whose learner.method is baseline; None where there is none."""
    if "baseline" in spec.arms:
        return "baseline"
    methods = {name: arm.set.get("learner.method", spec.learner.method) for name, arm in spec.arms.items()}
    return next((name for name, method in methods.items() if method == "baseline"), None)


def confirmed(spec: StudySpec, state: StudyState, arm: str) -> list[TrialState]:
    """The finished trials that confirm an arm's winner."""
    return [trial for trial in state.confirming_trials(arm, spec.search.goal) if trial.state == "finished"]


def records_table(storage: Storage, trial: TrialState) -> pa.Table:
    """The records of a trial, commit by commit (`olfl_ray.records.RECORDS`)."""
    return _rows(storage, trial, ".records.parquet", RECORDS)


def surfaces_table(storage: Storage, trial: TrialState) -> pa.Table:
    """The learned loss of a trial on its grid, commit by commit (`olfl_ray.records.SURFACES`)."""
    return _rows(storage, trial, ".surfaces.parquet", SURFACES)


def _rows(storage: Storage, trial: TrialState, name: str, schema: pa.Schema) -> pa.Table:
    tables = []
    for committed in trial.commits:
        try:
            data = read_file(storage, read_commit(storage, committed.commit), name)
            if data is not None:
                tables.append(from_parquet(data, schema))
        except (DataError, ValueError) as error:  # a key that no storage has, say
            _log.warning("%s: %s; %s is shown without it", committed.commit, error, trial.id)
    return pa.concat_tables(tables) if tables else schema.empty_table()


def values_on_test(spec: StudySpec, state: StudyState, arm: str, metric: str) -> dict[int, float]:
    """A metric of the test split by confirming seed; seeds that gave none, or none that is finite, are left out."""
    values = {}
    for trial in confirmed(spec, state, arm):
        replicates = trial.metrics.get(metric, [])
        value = mean(replicates) if replicates else math.nan
        if math.isfinite(value):
            values[trial.seeds[0]] = value
    return values


def _result(
    spec: StudySpec, state: StudyState, arm: str, values: Mapping[str, Mapping[int, float]], baseline: str | None
) -> ArmResult:
    own = values[arm]
    rmse = list(values_on_test(spec, state, arm, names.TEST_RMSE).values())
    best = state.best(arm, spec.search.goal)
    trials = [trial for trial in state.trials.values() if trial.id.arm == arm]
    return ArmResult(
        arm=arm,
        trials=dict(Counter(trial.state for trial in trials if not trial.id.confirming)),
        confirming=dict(Counter(trial.state for trial in trials if trial.id.confirming)),
        best=None if best is None else str(best.id),
        best_params={} if best is None else dict(best.params),
        selection_value=None if best is None else best.value,
        test_seeds=tuple(own),
        test_values=tuple(own.values()),
        test_mean=mean(list(own.values())) if own else None,
        test_sd=sd(list(own.values())) if len(own) > 1 else None,
        test_rmse=(mean(rmse), sd(rmse) if len(rmse) > 1 else None) if rmse else None,
        difference=None if baseline in (None, arm) else paired(baseline, own, values[baseline]),
    )
