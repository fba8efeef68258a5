"""One arm's search with any searcher: what a proposal may see, no point twice; rebuilt from the ledger, never stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from olfl_ray import ledger
from olfl_ray.errors import SpecError
from olfl_ray.pruners import pruner_of
from olfl_ray.registry import Registry
from olfl_ray.search.searcher import Searcher
from olfl_ray.search.space import Filtered, SearchTrial, space_of, trial_of
from olfl_ray.spec import StudySpec, checked_options, points_left, seed_of, values_of

__all__ = ["SEARCHERS", "ArmSearch", "check_search", "scattered"]

SEARCHERS = Registry("olfl_ray.search", Searcher)  # type: ignore[type-abstract]
"""Searchers by name; a user's own is `package.module:Class`."""

Decided = Mapping[str, list[tuple[int, float]]]
"""Metric values of each trial at the pruner's decision steps."""


def check_search(spec: StudySpec) -> None:
    """Refuse an unknown searcher or pruner, unknown options, and spaces that the searcher can't search.

    Raises:
        SpecError: Names the field, the rule and the next move.
    """
    pruner_of(spec.search.pruner)
    for arm in spec.arms:
        searcher = _searcher(spec, arm)
        for field, parameter in searcher.space.parameters.items():
            if parameter.expression is not None and not searcher.formulas:
                raise SpecError(
                    searcher.space.where[field],
                    f"searches formulas, which search.sampler {spec.search.sampler.name} does not; use evolution, or list "
                    "formulas as `values`",
                )
        searcher.check()


def scattered(spec: StudySpec, arm: str, count: int) -> list[dict[str, Any]]:
    """Points spread over an arm's search space; if they are enough, they include every value of each list.

    Of formulas they have one. The first is the point with which the search starts.
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
    return [search.propose(0, [], {}) or {}, *(ask(study, space)[1] for _ in range(count if space.parameters else 0))]


class ArmSearch:
    """The search of one arm.

    Args:
        spec: The study.
        arm: Name of the arm.
        concurrency: Number of concurrent trials; it determines what a deterministic search may see.
        task: Name of the arm's task; empty before its data was examined.

    Attributes:
        filtered: Candidates that were dropped on the way to the last proposal.
    """

    def __init__(self, spec: StudySpec, arm: str, concurrency: int, task: str = "") -> None:
        self._spec, self._arm, self._concurrency, self._task = spec, arm, concurrency, task
        self._live = _searcher(spec, arm, task)
        self.filtered: tuple[Filtered, ...] = ()
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

    def propose(self, ordinal: int, trials: Sequence[ledger.TrialState], decided: Decided) -> dict[str, Any] | None:
        """The point of search trial `ordinal`: field -> value. Trial 0 has the spec's own values if they are in range.

        Returns:
            None where the searcher has nothing more to propose.
        """
        searcher = self._live
        if self._recreates:
            visible = self._visible(ordinal, trials)
            others = [one for one in trials if one not in visible] if self._live.sees_running else []
            searcher = self._seeing(visible, decided, seed_of(self._spec.seed, self._arm, ordinal), others)
        own = self._space.own
        suggested = own if ordinal == 0 and own is not None else searcher.suggest(ordinal)
        self.filtered = tuple(searcher.filtered)
        searcher.filtered.clear()
        if suggested is None:
            return None
        found = self._space.taken(suggested)
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
        if not self._recreates:
            self._live.observe(replace(self._known[ordinal], state=state, value=value))  # type: ignore[arg-type]

    def may_propose(self, ordinal: int, trials: Sequence[ledger.TrialState]) -> bool:
        """Whether what proposal `ordinal` depends on has ended: of a deterministic search all trials that it may see."""
        if not self._recreates:
            return self._live.ready
        return all(trial.ended for trial in trials if trial.id.ordinal <= ordinal - self._concurrency)

    @property
    def exhausted(self) -> bool:
        """Whether the searcher has nothing more to propose."""
        return self._live.exhausted

    @property
    def _recreates(self) -> bool:
        """Whether each proposal is made by a new searcher, which knows what the proposal may see."""
        return self._spec.search.deterministic and not self._live.ordered

    def importances(self, trials: Iterable[ledger.TrialState]) -> dict[str, float]:
        """Importance of each searched field as a fraction of 1; empty if it can't be computed."""
        from olfl_ray.search.studies import importances

        return importances(self._space, [trial_of(trial, {}) for trial in trials])

    def _seeing(
        self,
        trials: Iterable[ledger.TrialState],
        decided: Decided,
        seed: int,
        running: Iterable[ledger.TrialState] = (),
    ) -> Searcher:
        """A searcher that knows only these trials, and of some only that they began."""
        searcher = _searcher(self._spec, self._arm, self._task)
        begun = [SearchTrial(ordinal=trial.id.ordinal, params=trial.params) for trial in running]
        searcher.replay([*(trial_of(trial, decided) for trial in trials), *begun], seed)
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


def _searcher(spec: StudySpec, arm: str, task: str = "") -> Searcher:
    named = spec.search.sampler
    kind = SEARCHERS.find(named.name, "search.sampler")
    return kind(checked_options(kind.Config, named.options, "search.sampler"), space_of(spec, arm, task))
