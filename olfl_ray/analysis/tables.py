"""What a study found, as rows: each arm's winner on fresh seeds beside the baseline, and the records of each trial."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from olfl_ray.ledger import StudyState, TrialState, read_commit
from olfl_ray.records import RECORDS, SURFACES, from_parquet, names
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

__all__ = ["ArmResult", "Difference", "baseline_arm", "best_trial", "final_table", "records_table", "surfaces_table"]


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
        test_indices: Index of each confirming seed that gave a test error, ascending.
        test_values: Test error on each of those seeds.
        test_mean: Their mean; None where there are none.
        test_sd: Their standard deviation; None below two.
        difference: Paired comparison with the baseline; None for the baseline itself and below two common seeds.
    """

    arm: str
    trials: Mapping[str, int]
    confirming: Mapping[str, int]
    best: str | None
    best_params: Mapping[str, Any]
    selection_value: float | None
    test_indices: tuple[int, ...]
    test_values: tuple[float, ...]
    test_mean: float | None
    test_sd: float | None
    difference: Difference | None

    @property
    def n(self) -> int:
        """Number of confirming seeds that gave a test error."""
        return len(self.test_values)


def final_table(spec: StudySpec, state: StudyState) -> list[ArmResult]:
    """One result an arm, in the spec's order."""
    values = {arm: _test_values(spec, state, arm) for arm in spec.arms}
    baseline = baseline_arm(spec)
    return [_result(spec, state, arm, values, baseline) for arm in spec.arms]


def baseline_arm(spec: StudySpec) -> str | None:
    """The arm named `baseline`, else the first one whose learner.method is baseline; None where there is none."""
    if "baseline" in spec.arms:
        return "baseline"
    methods = {name: arm.set.get("learner.method", spec.learner.method) for name, arm in spec.arms.items()}
    return next((name for name, method in methods.items() if method == "baseline"), None)


def best_trial(spec: StudySpec, state: StudyState, arm: str) -> TrialState | None:
    """The best finished search trial of an arm; ties go to the earlier one."""
    sign = 1 if spec.search.goal == "minimize" else -1
    ranked = [
        (sign * trial.value, trial.id.ordinal, trial)
        for trial in state.trials.values()
        if trial.id.arm == arm and not trial.id.confirming and trial.state == "finished" and trial.value is not None
    ]
    return min(ranked, key=lambda item: item[:2])[2] if ranked else None


def confirming_trials(spec: StudySpec, state: StudyState, arm: str) -> list[TrialState]:
    """The finished confirming trials of an arm's winner, by seed index; those of an earlier winner are left out."""
    best = best_trial(spec, state, arm)
    found = [
        trial
        for trial in state.trials.values()
        if trial.id.arm == arm
        and trial.id.confirming
        and trial.state == "finished"
        and best is not None
        and _canonical(trial.params) == _canonical(best.params)
    ]
    return sorted(found, key=lambda trial: trial.id.ordinal)


def records_table(storage: Storage, trial: TrialState) -> pa.Table:
    """The records of a trial, commit by commit (`olfl_ray.records.RECORDS`)."""
    return _rows(storage, trial, ".records.parquet", RECORDS)


def surfaces_table(storage: Storage, trial: TrialState) -> pa.Table:
    """The learned loss of a trial on its grid, commit by commit (`olfl_ray.records.SURFACES`)."""
    return _rows(storage, trial, ".surfaces.parquet", SURFACES)


def _rows(storage: Storage, trial: TrialState, name: str, schema: pa.Schema) -> pa.Table:
    tables = []
    for committed in trial.commits:
        key = read_commit(storage, committed.commit).file(name)
        if key is not None:
            tables.append(from_parquet(storage.read(key)).cast(schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _test_values(spec: StudySpec, state: StudyState, arm: str) -> dict[int, float]:
    values = {}
    for trial in confirming_trials(spec, state, arm):
        replicates = trial.metrics.get(names.TEST_ERROR, [])
        mean = sum(replicates) / len(replicates) if replicates else math.nan
        if math.isfinite(mean):
            values[trial.id.ordinal] = mean
    return values


def _result(
    spec: StudySpec, state: StudyState, arm: str, values: Mapping[str, Mapping[int, float]], baseline: str | None
) -> ArmResult:
    own = values[arm]
    best = best_trial(spec, state, arm)
    trials = [trial for trial in state.trials.values() if trial.id.arm == arm]
    return ArmResult(
        arm=arm,
        trials=dict(Counter(trial.state for trial in trials if not trial.id.confirming)),
        confirming=dict(Counter(trial.state for trial in trials if trial.id.confirming)),
        best=None if best is None else str(best.id),
        best_params={} if best is None else dict(best.params),
        selection_value=None if best is None else best.value,
        test_indices=tuple(own),
        test_values=tuple(own.values()),
        test_mean=_mean(list(own.values())) if own else None,
        test_sd=_sd(list(own.values())) if len(own) > 1 else None,
        difference=None if baseline in (None, arm) else _difference(baseline, own, values[baseline]),
    )


def _difference(baseline: str, own: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    from scipy import stats

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
    t = float(stats.t.ppf(0.975, n - 1))
    return Difference(
        baseline=baseline,
        n=n,
        mean=mean,
        sd=sd,
        low=mean - t * error,
        high=mean + t * error,
        detectable=(t + float(stats.t.ppf(0.8, n - 1))) * error,
        p=float(2 * stats.t.sf(abs(mean) / error, n - 1)),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _sd(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, default=str)
