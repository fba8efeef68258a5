"""Contract of searchers: a searcher proposes points of its space, can be rebuilt from known trials, never ends the best trial."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from olfl_ray.search import Searcher, SearchTrial, Space
from olfl_ray.spec import ExpressionSpace, Parameter, PrunerSpec

__all__ = ["SearcherContract", "formula_space", "list_space", "mixed_space"]

STEPS = (10, 30, 90)
ASHA = PrunerSpec(name="asha", min_steps=10, reduction=3)
SMOOTH: dict[str, Any] = {"loss.activation.name": "smooth_leaky_relu"}


def mixed_space(goal: Literal["minimize", "maximize"] = "minimize") -> Space:
    """Ranges and lists, one of them with a condition."""
    return _space(
        goal,
        {
            "learner.optimizer.lr": Parameter(min=0.003, max=0.3, log=True),
            "meta.init_steps": Parameter(min=1, max=30),
            "loss.activation.name": Parameter(values=("smooth_leaky_relu", "tanh")),
            "loss.activation.gamma": Parameter(min=0.01, max=0.3, when=SMOOTH),
        },
    )


def list_space(goal: Literal["minimize", "maximize"] = "minimize") -> Space:
    """Lists without conditions: 24 points."""
    return _space(
        goal,
        {
            "learner.optimizer.lr": Parameter(values=(0.01, 0.03, 0.1, 0.3)),
            "meta.init_steps": Parameter(values=(0, 10, 100)),
            "loss.activation.name": Parameter(values=("smooth_leaky_relu", "tanh")),
        },
    )


def formula_space(goal: Literal["minimize", "maximize"] = "minimize") -> Space:
    """A formula, a range, and a list."""
    return _space(
        goal,
        {
            "loss.formula": Parameter(expression=ExpressionSpace()),
            "learner.optimizer.lr": Parameter(min=0.003, max=0.3, log=True),
            "meta.init_steps": Parameter(values=(0, 10, 100)),
        },
    )


class SearcherContract:
    """Inherit it in a test module, and override `make`; also `space`, if it does not support every space."""

    count = 12
    """Number of trials in a test."""

    def make(self, space: Space) -> Searcher:
        """The searcher for a space."""
        raise NotImplementedError

    def space(self, goal: Literal["minimize", "maximize"] = "minimize") -> Space:
        """The search space."""
        return mixed_space(goal)

    def test_it_proposes_points_of_its_space(self) -> None:
        space = self.space()
        for trial in self._played(self._begun(space), self.count):
            assert space.taken(trial.params) == dict(trial.params)

    def test_an_empty_space_has_one_point(self) -> None:
        assert self._begun(replace(self.space(), parameters={}, where={}, own={})).suggest(0) == {}

    def test_the_same_trials_and_seed_give_the_same_proposals(self) -> None:
        space = self.space()
        known = self._played(self._begun(space), self.count)
        found = [self._played(self._begun(space, known, seed=5), 3, first=self.count) for _ in range(2)]
        assert [trial.params for trial in found[0]] == [trial.params for trial in found[1]]

    def test_a_trial_may_have_another_point_than_was_proposed(self) -> None:
        space = self.space()
        searcher, other = self._begun(space), self._begun(space, seed=9)
        self._played(searcher, 3)
        for ordinal in range(3, 6):
            searcher.suggest(ordinal)
            trial = SearchTrial(ordinal=ordinal, params=space.taken(other.suggest(ordinal) or {}))
            searcher.observe(trial)
            searcher.observe(replace(trial, state="finished", value=0.5))
        self._played(searcher, 3, first=6)

    def test_a_searcher_that_is_rebuilt_ends_the_same_trials(self) -> None:
        for goal in ("minimize", "maximize"):
            space = self.space(goal)
            searcher = self._begun(space)
            known: dict[int, SearchTrial] = {}
            for ordinal in range(self.count):
                known[ordinal] = self._proposed(searcher, ordinal)
                for step in STEPS:
                    now = _with(known[ordinal], step)
                    rebuilt = self._begun(space, known.values()).prune(now)
                    assert searcher.prune(now) == rebuilt, f"trial {ordinal} at step {step}"
                    known[ordinal] = now
                    if rebuilt:
                        break
                known[ordinal] = self._ended(searcher, known[ordinal], pruned=rebuilt)

    def test_it_never_ends_the_best_trial(self) -> None:
        for goal, sign in (("minimize", 1.0), ("maximize", -1.0)):
            searcher = self._begun(self.space(goal))  # type: ignore[arg-type]
            for ordinal in range(self.count):
                trial = self._proposed(searcher, ordinal)
                for step in STEPS:  # each trial is better than all before it
                    trial = replace(trial, values=(*trial.values, (step, sign * -ordinal)))
                    assert not searcher.prune(trial), f"trial {ordinal} at step {step}, the best so far"
                searcher.observe(replace(trial, state="finished", value=sign * -ordinal))

    def test_trials_that_failed_or_still_run_are_replayed(self) -> None:
        space = self.space()
        known = self._played(self._begun(space), 6)
        running = replace(known[3], state="running", value=None, values=known[3].values[:1])
        failed = replace(known[4], state="failed", value=None)
        searcher = self._begun(space, [*known[:3], running, failed, known[5]])
        searcher.prune(_with(running, STEPS[1]))
        searcher.observe(replace(running, state="finished", value=0.1))
        self._played(searcher, 3, first=6)

    def _begun(self, space: Space, known: Any = (), seed: int = 1) -> Searcher:
        searcher = self.make(space)
        searcher.check()
        searcher.replay(known, seed)
        return searcher

    def _proposed(self, searcher: Searcher, ordinal: int) -> SearchTrial:
        assert searcher.ready, "no trial runs"
        suggested = searcher.suggest(ordinal)
        assert suggested is not None
        assert not searcher.exhausted
        trial = SearchTrial(ordinal=ordinal, params=searcher.space.taken(suggested))
        searcher.observe(trial)
        return trial

    def _ended(self, searcher: Searcher, trial: SearchTrial, *, pruned: bool) -> SearchTrial:
        ended = replace(trial, state="pruned" if pruned else "finished", value=trial.values[-1][1])
        searcher.observe(ended)
        return ended

    def _played(self, searcher: Searcher, count: int, first: int = 0) -> list[SearchTrial]:
        """Trials that all run to the end."""
        found = []
        for ordinal in itertools.islice(itertools.count(first), count):
            trial = self._proposed(searcher, ordinal)
            for step in STEPS:
                trial = _with(trial, step)
                searcher.prune(trial)
            found.append(self._ended(searcher, trial, pruned=False))
        return found


def _space(goal: Literal["minimize", "maximize"], parameters: Mapping[str, Parameter]) -> Space:
    return Space(
        arm="online",
        parameters=parameters,
        base={},
        own=None,
        goal=goal,
        pruner=ASHA,
        seed=3,
        where={name: f"search.parameters.{name}" for name in parameters},
    )


def _with(trial: SearchTrial, step: int) -> SearchTrial:
    """The trial with a value at a step, computed from its point."""
    digest = hashlib.sha256(json.dumps([dict(trial.params), step], sort_keys=True).encode()).digest()
    return replace(trial, values=(*trial.values, (step, int.from_bytes(digest[:4], "big") / 2**32)))
