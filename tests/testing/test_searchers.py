"""Every built-in searcher fulfills the contract, and the contract rejects searchers that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.search import SEARCHERS, Searcher, SearchTrial, Space
from olfl_ray.testing import SearcherContract, formula_space, list_space


class BuiltIn(SearcherContract):
    name: ClassVar[str]

    def make(self, space: Space) -> Searcher:
        kind = SEARCHERS.find(self.name, "search.sampler")
        return kind(kind.Config(), space)


class TestTpe(BuiltIn):
    name = "tpe"


class TestRandom(BuiltIn):
    name = "random"


class TestQuasiRandom(BuiltIn):
    name = "qmc"


class TestCmaEs(BuiltIn):
    name = "cmaes"


class TestGaussianProcess(BuiltIn):
    name = "gp"
    count = 11  # the first ten are drawn at random


class TestGrid(BuiltIn):
    name = "grid"

    def space(self, goal: Literal["minimize", "maximize"] = "minimize") -> Space:
        return list_space(goal)

    def test_an_empty_space_has_one_point(self) -> None:
        assert self._begun(list_space()).suggest(0)  # an empty list has no point


class TestEvolution(BuiltIn):
    name = "evolution"
    mode = "generational"

    def make(self, space: Space) -> Searcher:
        kind = SEARCHERS.find(self.name, "search.sampler")
        return kind(kind.Config(population=4, mode=self.mode), space)  # several generations in a test

    def space(self, goal: Literal["minimize", "maximize"] = "minimize") -> Space:
        return formula_space(goal)


class TestAsynchronousEvolution(TestEvolution):
    mode = "asynchronous"


def test_each_built_in_searcher_is_tested() -> None:
    assert sorted(kind.name for kind in BuiltIn.__subclasses__()) == SEARCHERS.names()


class Fair(Searcher):
    """Draws at random, with the methods of the base class only."""

    def suggest(self, ordinal: int) -> Mapping[str, Any]:
        return self.space.point(self.draw)


class TestFair(SearcherContract):
    def make(self, space: Space) -> Searcher:
        return Fair(None, space)


class Unseeded(Fair):
    """Its proposals after a replay depend on more than the seed."""

    starts = 0

    def replay(self, trials: Iterable[SearchTrial], seed: int) -> None:
        Unseeded.starts += 1
        super().replay(trials, seed + Unseeded.starts)


class Forgetful(Fair):
    """After a replay it knows only the trials that are still running."""

    def replay(self, trials: Iterable[SearchTrial], seed: int) -> None:
        super().replay([trial for trial in trials if trial.state == "running"], seed)


class Upside(Fair):
    """Ends good trials."""

    def prune(self, trial: SearchTrial) -> bool:
        others = [one.values[0][1] for one in self.trials.values() if one.values and one.ordinal != trial.ordinal]
        super().prune(trial)
        return any(trial.values[-1][1] < other for other in others)


class Outside(Fair):
    """Proposes values that are not in the space."""

    def suggest(self, ordinal: int) -> Mapping[str, Any]:
        return {**super().suggest(ordinal), "meta.init_steps": 31}


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Unseeded, "test_the_same_trials_and_seed_give_the_same_proposals"),
        (Forgetful, "test_a_searcher_that_is_rebuilt_ends_the_same_trials"),
        (Upside, "test_it_never_ends_the_best_trial"),
        (Outside, "test_it_proposes_points_of_its_space"),
    ],
)
def test_planted_fault_is_detected(kind: type[Fair], test: str) -> None:
    class Suite(SearcherContract):
        def make(self, space: Space) -> Searcher:
            return kind(None, space)

    with pytest.raises((AssertionError, SpecError)):
        getattr(Suite(), test)()
