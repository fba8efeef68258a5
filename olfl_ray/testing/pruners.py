"""Contract of pruners: a decision is made once, and it depends only on the trials' values, so that a resumed study repeats it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from olfl_ray.pruners import Pruner, pruner_of
from olfl_ray.search import SEARCHERS, Searcher, Space
from olfl_ray.spec import PrunerSpec
from olfl_ray.testing.searchers import SearcherContract

__all__ = ["PrunerContract"]

STEPS = (0, 1, 7, 40, 99, 100, 101, 250, 900, 2000)


class PrunerContract:
    """Inherit it in a test module, and set `name`.

    Attributes:
        name: As `search.pruner` gives it: a built-in name, or `package.module:Class`.
        options: Settings next to the name.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    def test_a_decision_is_made_once(self) -> None:
        pruner = self._made()
        for before, between, step in itertools.combinations(STEPS, 3):
            parts = pruner.decides(before, between) or pruner.decides(between, step)
            assert pruner.decides(before, step) == parts, f"between the steps {before}, {between} and {step}"

    def test_a_rebuilt_search_ends_the_same_trials(self) -> None:
        _Searched(self._section()).test_a_searcher_that_is_rebuilt_ends_the_same_trials()

    def _section(self) -> PrunerSpec:
        return PrunerSpec.model_validate({"name": self.name, **self.options})

    def _made(self) -> Pruner:
        return pruner_of(self._section())


class _Searched(SearcherContract):
    """The searchers' suite with random points and this pruner."""

    def __init__(self, section: PrunerSpec) -> None:
        self._section = section

    def make(self, space: Space) -> Searcher:
        kind = SEARCHERS.find("random", "search.sampler")
        return kind(kind.Config(), replace(space, pruner=self._section))
