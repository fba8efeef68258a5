"""What a study found, as rows: each arm's winner on fresh seeds beside the baseline, and the records of each trial."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from olfl_ray.errors import DataError
from olfl_ray.ledger import StudyState, TrialState, read_commit, read_file
from olfl_ray.records import RECORDS, SURFACES, from_parquet, names
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

__all__ = ["ArmResult", "Difference", "baseline_arm", "confirmed", "final_table", "records_table", "surfaces_table"]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How an arm's test errors differ from the baseline's, seed by seed; below zero the arm errs less.

    Args:
        baseline: The arm compared with.
        n: Seeds that both arms finished.
        mean: Mean difference, arm minus baseline.
        sd: Standard deviation of the differences.
        low: Lower end of the 95 % confidence interval of the mean (Student's t).
        high: Its upper end.
        detectable: Smallest true difference that such a comparison finds with power 0.8 at level 0.05.
        p: Two-sided p value of the paired t-test.
    """

    baseline: str
    n: int
    mean: float
    sd: float
    low: float
    high: float
    detectable: float
    p: float


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
    values = {arm: _test_values(spec, state, arm, names.TEST_ERROR) for arm in spec.arms}
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
        except DataError as error:
            _log.warning("%s; %s is shown without it", error, trial.id)
            continue
        if data is not None:
            tables.append(from_parquet(data).cast(schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _test_values(spec: StudySpec, state: StudyState, arm: str, metric: str) -> dict[int, float]:
    values = {}
    for trial in confirmed(spec, state, arm):
        replicates = trial.metrics.get(metric, [])
        mean = sum(replicates) / len(replicates) if replicates else math.nan
        if math.isfinite(mean):
            values[trial.seeds[0]] = mean
    return values


def _result(
    spec: StudySpec, state: StudyState, arm: str, values: Mapping[str, Mapping[int, float]], baseline: str | None
) -> ArmResult:
    own = values[arm]
    rmse = list(_test_values(spec, state, arm, names.TEST_RMSE).values())
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
        test_mean=_mean(list(own.values())) if own else None,
        test_sd=_sd(list(own.values())) if len(own) > 1 else None,
        test_rmse=(_mean(rmse), _sd(rmse) if len(rmse) > 1 else None) if rmse else None,
        difference=None if baseline in (None, arm) else _difference(baseline, own, values[baseline]),
    )


def _difference(baseline: str, own: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes two seconds to import

    shared = [index for index in own if index in other]
    n = len(shared)
    if n < 2:
        return None
    differences = [own[index] - other[index] for index in shared]
    mean, sd = _mean(differences), _sd(differences)
    if sd <= 1e-12 * max(abs(own[index]) + abs(other[index]) for index in shared):
        p = 1.0 if mean == 0 else 0.0
        return Difference(baseline=baseline, n=n, mean=mean, sd=0.0, low=mean, high=mean, detectable=0.0, p=p)
    error = sd / math.sqrt(n)
    t = float(stdtrit(n - 1, 0.975))
    return Difference(
        baseline=baseline,
        n=n,
        mean=mean,
        sd=sd,
        low=mean - t * error,
        high=mean + t * error,
        detectable=(t + float(stdtrit(n - 1, 0.8))) * error,
        p=float(2 * stdtr(n - 1, -abs(mean) / error)),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _sd(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
