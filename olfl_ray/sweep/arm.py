"""One arm's search: Optuna proposes points and prunes by intermediate values; rebuilt from the ledger, never stored."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from olfl_ray import ledger
from olfl_ray.spec import Parameter, StudySpec, active, base_values, own_point, points_left, same, seed_of, values_of
from olfl_ray.sweep.samplers import listed, replaying_sampler, sampler

__all__ = ["ArmSearch", "scattered"]

optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of conditional fields, which the spec explains


def scattered(spec: StudySpec, arm: str, count: int) -> list[dict[str, Any]]:
    """Points all over an arm's search space: every value of each list is among them, if they are enough.

    The first is the one that the search begins with.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    search, parameters = ArmSearch(spec, arm, 1), spec.parameters_of(arm)
    listed = [{name: json.dumps(value)} for name, parameter in parameters.items() for value in parameter.values or ()]
    for fixed in listed[:count]:
        study.enqueue_trial(fixed)
    search.replay([], {})
    return [search.propose(0, [], {}), *(search.suggest(study.ask()) for _ in range(count if parameters else 0))]


class ArmSearch:
    """The search of one arm.

    Args:
        spec: The study.
        arm: Name of the arm.
        concurrency: Trials at a time; what a deterministic search may see depends on it.
    """

    def __init__(self, spec: StudySpec, arm: str, concurrency: int) -> None:
        self._spec, self._arm, self._concurrency = spec, arm, concurrency
        self._parameters = spec.parameters_of(arm)
        self._base = base_values(spec, arm)
        self._live: optuna.Study | None = None
        self._trials: dict[int, Trial] = {}
        self._own = own_point(spec, arm)
        self._proposed: set[str] = set()

    def replay(self, trials: Iterable[ledger.TrialState], decided: dict[str, list[tuple[int, float]]]) -> None:
        """Rebuild the live search from the ledger; `decided` has each trial's values at decision steps."""
        trials = list(trials)
        # Seeded again by the progress of the search: the same seed would propose the same points again.
        seed = seed_of(self._spec.seed, self._arm, "sampler", len(trials))
        self._live, self._trials = self._study(trials, decided, seed)
        self._proposed = {self._key(trial.params) for trial in trials}

    def propose(
        self, ordinal: int, trials: Sequence[ledger.TrialState], decided: dict[str, list[tuple[int, float]]]
    ) -> dict[str, Any]:
        """The point of search trial `ordinal`: field -> value. Trial 0 has the spec's own values, where they are in range."""
        if self._spec.search.deterministic:
            seed = seed_of(self._spec.seed, self._arm, ordinal)
            study, _ = self._study(self._visible(ordinal, trials), decided, seed)
        else:
            assert self._live is not None
            study = self._live
        own, name = self._own, self._spec.search.sampler.name
        point: Mapping[str, Any] | None
        if ordinal == 0 and name != "grid" and own is not None:
            point = own
        else:
            sequence = seed_of(self._spec.seed, self._arm, "sequence")
            point = listed(name, self._parameters, own, seed=sequence, ordinal=ordinal)
        trial, found = self._ask(study, point)
        if self._repeats(found):
            random = Random(seed_of(self._spec.seed, self._arm, ordinal, "unseen"))
            left = points_left(self._spec, self._arm, random)
            fresh = next((point for point in left if self._key(point) not in self._proposed), None)
            if fresh is not None:
                study.tell(trial, state=TrialState.FAIL)  # which no sampler learns from
                trial, found = self._ask(study, fresh)
        self._trials[ordinal] = trial
        self._proposed.add(self._key(found))
        return found

    def _ask(self, study: optuna.Study, point: Mapping[str, Any] | None) -> tuple[Trial, dict[str, Any]]:
        """A trial at a point, or where the sampler proposes; and the point."""
        if point is not None:
            study.enqueue_trial(_encoded(self._parameters, point))
        trial = study.ask()
        return trial, self.suggest(trial)

    def _key(self, point: Mapping[str, Any]) -> str:
        return json.dumps(_encoded(self._parameters, point), sort_keys=True)

    def _repeats(self, point: Mapping[str, Any]) -> bool:
        """Whether a point was proposed before. Of a range of floats, a repeated value is as good as another."""
        discrete = all(values_of(self._parameters[name]) is not None for name in point)
        return discrete and self._key(point) in self._proposed

    def should_prune(
        self,
        ordinal: int,
        step: int,
        value: float,
        trials: Sequence[ledger.TrialState],
        decided: dict[str, list[tuple[int, float]]],
    ) -> bool:
        """Take a value at a decision step; whether the trial ends here."""
        if not math.isfinite(value):
            return False
        if self._spec.search.deterministic:
            mine = next(trial for trial in trials if trial.id.ordinal == ordinal)
            _, known = self._study([*self._visible(ordinal, trials), mine], decided, 0)
            trial = known[ordinal]
        else:
            trial = self._trials[ordinal]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a value that a restored worker reports again changes nothing
            trial.report(value, step)
        return trial.should_prune()

    def end(self, ordinal: int, state: str, value: float | None) -> None:
        """Tell the end of a trial, once."""
        if not self._spec.search.deterministic and ordinal in self._trials:
            assert self._live is not None
            _tell(self._live, self._trials.pop(ordinal), state, value)

    def may_propose(self, ordinal: int, trials: Sequence[ledger.TrialState]) -> bool:
        """A deterministic search waits for the trials that proposal `ordinal` may see."""
        if not self._spec.search.deterministic:
            return True
        return all(trial.ended for trial in trials if trial.id.ordinal <= ordinal - self._concurrency)

    def importances(self) -> dict[str, float]:
        """Importance of each searched field, a share of 1; empty if it can't be computed."""
        if self._live is None:
            return {}
        done = [trial for trial in self._live.trials if trial.state == TrialState.COMPLETE]
        if len(done) < 4 or len({trial.value for trial in done}) < 2:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return dict(
                    optuna.importance.get_param_importances(
                        self._live, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
                    )
                )
        except (ValueError, RuntimeError):
            return {}

    def _visible(self, ordinal: int, trials: Sequence[ledger.TrialState]) -> list[ledger.TrialState]:
        return sorted(
            (trial for trial in trials if trial.id.ordinal <= ordinal - self._concurrency),
            key=lambda trial: trial.id.ordinal,
        )

    def _study(
        self,
        trials: Iterable[ledger.TrialState],
        decided: dict[str, list[tuple[int, float]]],
        seed: int,
    ) -> tuple[optuna.Study, dict[int, Trial]]:
        """An Optuna study of trials of the ledger, in their order; and those still open by ordinal."""
        search = self._spec.search
        study = optuna.create_study(
            direction=search.goal, sampler=replaying_sampler(search.sampler.name), pruner=self._pruner()
        )
        known = {}
        for state in trials:
            study.enqueue_trial(_encoded(self._parameters, state.params))
            trial = study.ask()
            self.suggest(trial)
            for step, value in decided.get(str(state.id), []):
                trial.report(value, step)
                trial.should_prune()
            if state.ended:
                _tell(study, trial, state.state, state.value)
            else:
                known[state.id.ordinal] = trial
        study.sampler = sampler(search.sampler.name, seed)
        return study, known

    def _pruner(self) -> optuna.pruners.BasePruner:
        pruner = self._spec.search.pruner
        if pruner.name == "asha":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=pruner.min_steps, reduction_factor=pruner.reduction
            )
        if pruner.name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=pruner.min_steps - 1)
        return optuna.pruners.NopPruner()

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A point: fields in an order in which each one's conditions are known before it."""
        params: dict[str, Any] = {}
        waiting = list(self._parameters)
        while True:
            ready = [
                name
                for name in waiting
                if name in active(self._parameters, params, self._base)
                and not any(field in waiting for field in self._parameters[name].when)
            ]
            if not ready:
                return params
            for name in ready:
                params[name] = _suggest_one(trial, name, self._parameters[name])
                waiting.remove(name)


def _suggest_one(trial: Trial, name: str, parameter: Parameter) -> Any:
    if parameter.values is not None:
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in parameter.values]))
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    if parameter.is_integer:
        return trial.suggest_int(name, int(low), int(high), log=parameter.log)
    return trial.suggest_float(name, float(low), float(high), log=parameter.log)


def _encoded(parameters: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _choice(parameters[name], value) for name, value in params.items()}


def _choice(parameter: Parameter, value: Any) -> Any:
    """The text of a value of a list, however that value is written (0, 0.0); any other value itself."""
    if parameter.values is None:
        return value
    return json.dumps(next((choice for choice in parameter.values if same(choice, value)), value))


def _tell(study: optuna.Study, trial: Trial, state: str, value: float | None) -> None:
    """The table of docs/design.md: finished is COMPLETE, pruned and diverged are PRUNED, failed is FAIL."""
    if state == "finished" and value is not None and math.isfinite(value):
        study.tell(trial, value)
    elif state == "failed":
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, state=TrialState.PRUNED)
