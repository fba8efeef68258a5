"""In-memory Optuna studies, created from an arm's known trials; points as Optuna distributions."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from olfl_ray.pruners import pruner_of
from olfl_ray.search.space import SearchTrial, Space
from olfl_ray.spec import Parameter

__all__ = ["ask", "importances", "report", "study_of", "tell"]

optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns about conditional fields, which are intended


def study_of(
    space: Space,
    trials: Iterable[SearchTrial],
    sampler: optuna.samplers.BaseSampler,
    widest: int | None = None,
) -> tuple[optuna.Study, dict[int, Trial]]:
    """A study of known trials, in their order; and the trials that are still running, by ordinal.

    Args:
        space: The search space.
        trials: The known trials.
        sampler: Sampler while they are added to the study, with each value given.
        widest: As for `ask`.
    """
    study = optuna.create_study(direction=space.goal, sampler=sampler, pruner=pruner_of(space.pruner).rule())
    running = {}
    for known in trials:
        trial, _ = ask(study, space, known.params, widest)
        for step, value in known.values:
            trial.report(value, step)
            trial.should_prune()
        if known.state == "running":
            running[known.ordinal] = trial
        else:
            tell(study, trial, known)
    return study, running


def ask(
    study: optuna.Study, space: Space, point: Mapping[str, Any] | None = None, widest: int | None = None
) -> tuple[Trial, dict[str, Any]]:
    """A trial at a given point, or where the study's sampler proposes; and the point.

    Args:
        study: The study.
        space: The search space.
        point: The point; None: the sampler proposes one.
        widest: Integer ranges wider than this are proposed as rounded floats; None: never.
    """
    if point is not None:
        spelled = space.spelled(point)
        study.enqueue_trial({name: spelled[name] for name in spelled if space.parameters[name].expression is None})
    trial = study.ask()

    def value(name: str, parameter: Parameter) -> Any:
        if parameter.expression is not None:  # Optuna has no such distribution: it sees the other fields
            return parameter.expression.example if point is None else point[name]
        return _suggested(trial, name, parameter, widest)

    return trial, space.point(value)


def report(trial: Trial, step: int, value: float) -> bool:
    """Report a value; whether the study's pruner ends the trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a restored worker reports a value again, which changes nothing
        trial.report(value, step)
    return trial.should_prune()


def tell(study: optuna.Study, trial: Trial, ended: SearchTrial) -> None:
    """Report the end of a trial by the table of docs/design.md: finished is COMPLETE, pruned and diverged PRUNED, failed FAIL."""
    if ended.state == "finished" and ended.value is not None and math.isfinite(ended.value):
        study.tell(trial, ended.value)
    elif ended.state == "failed":
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, state=TrialState.PRUNED)


def importances(space: Space, trials: Iterable[SearchTrial]) -> dict[str, float]:
    """Importance of each searched field (fANOVA) as a fraction of 1; empty if it can't be computed."""
    study, _ = study_of(space, trials, optuna.samplers.RandomSampler(seed=0))
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(done) < 4 or len({trial.value for trial in done}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    except (ValueError, RuntimeError):
        return {}


def _suggested(trial: Trial, name: str, parameter: Parameter, widest: int | None) -> Any:
    if parameter.values is not None:
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in parameter.values]))
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    if parameter.is_integer and (widest is None or high - low <= widest):
        return trial.suggest_int(name, int(low), int(high), log=parameter.log)
    if parameter.is_integer:
        return round(trial.suggest_float(name, low, high, log=parameter.log))
    return trial.suggest_float(name, float(low), float(high), log=parameter.log)
