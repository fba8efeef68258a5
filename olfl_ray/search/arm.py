"""One arm's search with any searcher: what a proposal may see, no point twice; rebuilt from the ledger, never stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from olfl_ray import ledger
from olfl_ray.registry import Registry
from olfl_ray.search.searcher import Searcher
from olfl_ray.search.space import SearchTrial, space_of, trial_of
from olfl_ray.spec import StudySpec, checked_options, points_left, seed_of, values_of

__all__ = ["SEARCHERS", "ArmSearch", "check_search", "scattered"]

SEARCHERS = Registry("olfl_ray.search", Searcher)  # type: ignore[type-abstract]
"""Searchers by name; a user's own is `package.module:Class`."""

Decided = Mapping[str, list[tuple[int, float]]]
"""Metric values of each trial at the pruner's decision steps."""


def check_search(spec: StudySpec) -> None:
    """Refuse an unknown searcher, unknown options, and spaces that the searcher can't search.

    Raises:
        SpecError: Names the field, the rule and the next move.
    """
    for arm in spec.arms:
        _searcher(spec, arm).check()


def scattered(spec: StudySpec, arm: str, count: int) -> list[dict[str, Any]]:
    """Points spread over an arm's search space; if they are enough, they include every value of each list.

    The first is the point with which the search starts.
    """
    import optuna

    from olfl_ray.search.studies import ask

    space = space_of(spec, arm)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    listed = [(name, value) for name, parameter in space.parameters.items() for value in parameter.values or ()]
    for name, value in listed[:count]:
        study.enqueue_trial({name: json.dumps(value)})
    search = ArmSearch(spec, arm, spec.concurrency)
    search.replay([], {})
    return [search.propose(0, [], {}), *(ask(study, space)[1] for _ in range(count if space.parameters else 0))]


class ArmSearch:
    """The search of one arm.

    Args:
        spec: The study.
        arm: Name of the arm.
        concurrency: Number of concurrent trials; it determines what a deterministic search may see.
    """

    def __init__(self, spec: StudySpec, arm: str, concurrency: int) -> None:
        self._spec, self._arm, self._concurrency = spec, arm, concurrency
        self._live = _searcher(spec, arm)
        self._space = self._live.space
        self._known: dict[int, SearchTrial] = {}
        self._proposed: set[str] = set()

    def replay(self, trials: Iterable[ledger.TrialState], decided: Decided) -> None:
        """Rebuild the search from the ledger; `decided` has each trial's values at decision steps."""
        known = [trial_of(trial, decided) for trial in trials]
        # Reseeded by the progress of the search: with the same seed it would propose the same points again.
        self._live.replay(known, seed_of(self._spec.seed, self._arm, "sampler", len(known)))
        self._known = {trial.ordinal: trial for trial in known}
        self._proposed = {self._key(trial.params) for trial in known}

    def propose(self, ordinal: int, trials: Sequence[ledger.TrialState], decided: Decided) -> dict[str, Any]:
        """The point of search trial `ordinal`: field -> value. Trial 0 has the spec's own values if they are in range."""
        searcher = self._live
        if self._spec.search.deterministic:
            searcher = self._seeing(
                self._visible(ordinal, trials), decided, seed_of(self._spec.seed, self._arm, ordinal)
            )
        own = self._space.own
        found = self._space.taken(own if ordinal == 0 and own is not None else searcher.suggest(ordinal))
        if self._repeats(found):
            random = Random(seed_of(self._spec.seed, self._arm, ordinal, "unseen"))
            left = points_left(self._spec, self._arm, random)
            fresh = next((point for point in left if self._key(point) not in self._proposed), None)
            found = found if fresh is None else self._space.taken(fresh)
        self._known[ordinal] = SearchTrial(ordinal=ordinal, params=found)
        searcher.observe(self._known[ordinal])
        self._proposed.add(self._key(found))
        return found

    def should_prune(
        self, ordinal: int, step: int, value: float, trials: Sequence[ledger.TrialState], decided: Decided
    ) -> bool:
        """Record a finite value at a decision step; whether the trial ends here."""
        if self._spec.search.deterministic:
            mine = next(trial for trial in trials if trial.id.ordinal == ordinal)
            known = trial_of(mine, decided)
            searcher = self._seeing([*self._visible(ordinal, trials), mine], decided, self._spec.seed)
        else:
            known, searcher = self._known[ordinal], self._live
        before = tuple(pair for pair in known.values if pair[0] < step)
        self._known[ordinal] = now = replace(known, values=(*before, (step, value)))
        return searcher.prune(now)

    def end(self, ordinal: int, state: str, value: float | None) -> None:
        """Record the end of a running trial."""
        if not self._spec.search.deterministic:
            self._live.observe(replace(self._known[ordinal], state=state, value=value))  # type: ignore[arg-type]

    def may_propose(self, ordinal: int, trials: Sequence[ledger.TrialState]) -> bool:
        """Whether a deterministic search has all trials that proposal `ordinal` may see."""
        if not self._spec.search.deterministic:
            return True
        return all(trial.ended for trial in trials if trial.id.ordinal <= ordinal - self._concurrency)

    def importances(self, trials: Iterable[ledger.TrialState]) -> dict[str, float]:
        """Importance of each searched field as a fraction of 1; empty if it can't be computed."""
        from olfl_ray.search.studies import importances

        return importances(self._space, [trial_of(trial, {}) for trial in trials])

    def _seeing(self, trials: Iterable[ledger.TrialState], decided: Decided, seed: int) -> Searcher:
        """A searcher that knows only these trials."""
        searcher = _searcher(self._spec, self._arm)
        searcher.replay([trial_of(trial, decided) for trial in trials], seed)
        return searcher

    def _visible(self, ordinal: int, trials: Sequence[ledger.TrialState]) -> list[ledger.TrialState]:
        return sorted(
            (trial for trial in trials if trial.id.ordinal <= ordinal - self._concurrency),
            key=lambda trial: trial.id.ordinal,
        )

    def _key(self, point: Mapping[str, Any]) -> str:
        return json.dumps(self._space.spelled(point), sort_keys=True)

    def _repeats(self, point: Mapping[str, Any]) -> bool:
        """Whether a point was proposed before. In a range of floats, repeated values are allowed."""
        discrete = all(values_of(self._space.parameters[name]) is not None for name in point)
        return discrete and self._key(point) in self._proposed


def _searcher(spec: StudySpec, arm: str) -> Searcher:
    named = spec.search.sampler
    kind = SEARCHERS.find(named.name, "search.sampler")
    return kind(checked_options(kind.Config, named.options, "search.sampler"), space_of(spec, arm))
