"""A study's results as tables: each arm's winner on fresh seeds next to the baseline, and the records of each trial."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from olfl_ray.analysis.gradient import Gradient, gradient_of
from olfl_ray.analysis.outcome import Outcome
from olfl_ray.analysis.statistics import mean, paired
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
    "outcomes",
    "records_table",
    "surfaces_table",
    "values_on_test",
    "with_gradients",
]


GRADIENTS_OF = 3
"""Number of confirming trials per arm whose gradients are read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm's outcome.

    Args:
        arm: The arm.
        trials: Number of search trials by state.
        confirming: Number of confirming trials by state.
        best: Id of the winner; None if no search trial finished.
        best_params: The winner's settings.
        selection_value: The winner's search metric on the validation split.
        test: The search metric on the test split.
        primary: The task's primary metric on the test split; None if it is the search metric, or unknown.
        described: What optimizers and learnables record of the winner's weights, such as their sparsity, on the test split's runs.
        gradient: The gradient that the winner's theta followed, compared with the task loss's; None if unknown.
    """

    arm: str
    trials: Mapping[str, int]
    confirming: Mapping[str, int]
    best: str | None
    best_params: Mapping[str, Any]
    selection_value: float | None
    test: Outcome
    primary: Outcome | None = None
    described: Sequence[Outcome] = ()
    gradient: Gradient | None = None

    @property
    def n(self) -> int:
        """Number of confirming seeds with a value of the search metric."""
        return self.test.n

    @property
    def contradicted(self) -> bool:
        """Whether the arm is better than the baseline by one of the two metrics and worse by the other."""
        return self.primary is not None and self.test.gain * self.primary.gain < 0


def final_table(spec: StudySpec, state: StudyState, storage: Storage | None = None) -> list[ArmResult]:
    """One result per arm, in the spec's order, by the study's search metric.

    Args:
        spec: The study.
        state: Its state.
        storage: The study's storage, to read each arm's gradients; None: without them.
    """
    metric, goal = names.metric_of(spec.search.metric), spec.search.goal
    tests = outcomes(spec, state, metric, goal)
    facts = next(iter(state.facts.values()), None)
    primaries: Mapping[str, Outcome] = {}
    if facts is not None and facts.primary != metric:
        primaries = outcomes(spec, state, facts.primary, facts.goals[facts.primary])
    found = [_result(spec, state, arm, tests[arm], primaries.get(arm)) for arm in spec.arms]
    if facts is not None:
        described = _described(spec, state, facts.goals)
        found = [replace(result, described=[one for one in described[result.arm] if one.n]) for result in found]
    return found if storage is None else with_gradients(found, spec, state, partial(records_table, storage))


def with_gradients(
    results: Sequence[ArmResult], spec: StudySpec, state: StudyState, read: Callable[[TrialState], pa.Table]
) -> list[ArmResult]:
    """The results with each arm's gradients, from the records that `read` returns of a trial."""
    return [replace(result, gradient=_gradient(spec, state, read, result.arm)) for result in results]


def _described(spec: StudySpec, state: StudyState, goals: Mapping[str, str]) -> dict[str, list[Outcome]]:
    """By arm, the metrics on the test split that are none of the task's (nor the user's): they describe the weights."""
    found: dict[str, list[Outcome]] = {arm: [] for arm in spec.arms}
    recorded = (name for arm in spec.arms for trial in confirmed(spec, state, arm) for name in trial.metrics)
    for name in dict.fromkeys(names.metric_of(name) for name in recorded if name.startswith(names.TEST_PREFIX)):
        if name not in goals:
            for arm, outcome in outcomes(spec, state, name, "").items():
                found[arm].append(outcome)
    return found


def outcomes(spec: StudySpec, state: StudyState, metric: str, goal: str) -> dict[str, Outcome]:
    """Each arm's winner by a metric of the test split, compared with the baseline seed by seed."""
    baseline = baseline_arm(spec, state)
    values = {arm: values_on_test(spec, state, arm, names.on_test(metric)) for arm in spec.arms}
    found = {}
    for arm, own in values.items():
        trivial = values_on_test(spec, state, arm, names.of_trivial(metric))
        known = [trivial[seed] for seed in own if seed in trivial]
        found[arm] = Outcome(
            metric=metric,
            goal=goal,
            values=own,
            trivial=mean(known) if known else None,
            difference=None if baseline in (None, arm) else paired(baseline, own, values[baseline]),
        )
    return found


def baseline_arm(spec: StudySpec, state: StudyState) -> str | None:
    """The arm named `baseline`, else the first one that learns nothing besides theta; None if there is none."""
    if "baseline" in spec.arms:
        return "baseline"
    return next((arm for arm in spec.arms if (facts := state.facts.get(arm)) is not None and not facts.learns), None)


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
        except (DataError, ValueError) as error:  # ValueError: an invalid key
            _log.warning("%s: %s; %s is shown without it", committed.commit, error, trial.id)
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _gradient(spec: StudySpec, state: StudyState, read: Callable[[TrialState], pa.Table], arm: str) -> Gradient | None:
    best = state.best(arm, spec.search.goal)
    trials = confirmed(spec, state, arm)[:GRADIENTS_OF] or ([] if best is None else [best])
    return gradient_of(read(trial) for trial in trials)


def values_on_test(spec: StudySpec, state: StudyState, arm: str, metric: str) -> dict[int, float]:
    """A metric of the test split by confirming seed; seeds without a finite value are left out."""
    values = {}
    for trial in confirmed(spec, state, arm):
        replicates = trial.metrics.get(metric, [])
        value = mean(replicates) if replicates else math.nan
        if math.isfinite(value):
            values[trial.seeds[0]] = value
    return values


def _result(spec: StudySpec, state: StudyState, arm: str, test: Outcome, primary: Outcome | None) -> ArmResult:
    best = state.best(arm, spec.search.goal)
    trials = [trial for trial in state.trials.values() if trial.id.arm == arm]
    return ArmResult(
        arm=arm,
        trials=dict(Counter(trial.state for trial in trials if not trial.id.confirming)),
        confirming=dict(Counter(trial.state for trial in trials if trial.id.confirming)),
        best=None if best is None else str(best.id),
        best_params={} if best is None else dict(best.params),
        selection_value=None if best is None else best.value,
        test=test,
        primary=primary,
    )
