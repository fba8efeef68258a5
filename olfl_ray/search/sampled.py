"""Searchers based on Optuna's samplers: one in-memory study that receives every trial."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from optuna import Study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import Trial

from olfl_ray.search.searcher import Searcher
from olfl_ray.search.space import SearchTrial
from olfl_ray.search.studies import ask, report, study_of, tell

__all__ = ["Sampled"]


class Sampled(Searcher):
    """Proposes with an Optuna sampler. Samplers learn from pruned trials as they do in Optuna."""

    _study: Study
    widest: ClassVar[int | None] = None
    """Integer ranges wider than this are proposed as rounded floats; None: never."""

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """The sampler."""

    def replaying(self) -> BaseSampler:
        """The sampler for adding known trials to the study: the cheapest one possible, as their values are given."""
        return RandomSampler(seed=0)

    def listed(self, ordinal: int) -> Mapping[str, Any] | None:
        """The point of a trial if it depends on no result; None if the sampler proposes it."""
        return None

    def replay(self, trials: Iterable[SearchTrial], seed: int) -> None:
        self._study, self._running = study_of(self.space, trials, self.replaying(), self.widest)
        self._study.sampler = self.sampler(seed)
        self._asked: dict[int, tuple[Trial, dict[str, Any]]] = {}

    def suggest(self, ordinal: int) -> Mapping[str, Any]:
        self._asked[ordinal] = ask(self._study, self.space, self.listed(ordinal), self.widest)
        return self._asked[ordinal][1]

    def observe(self, trial: SearchTrial) -> None:
        if trial.state != "running":
            if trial.ordinal in self._running:
                tell(self._study, self._running.pop(trial.ordinal), trial)
            return
        asked, point = self._asked.pop(trial.ordinal, (None, None))
        if asked is None or point != trial.params:
            if asked is not None:
                tell(self._study, asked, replace(trial, state="failed"))  # samplers do not learn from failed trials
            asked, _ = ask(self._study, self.space, trial.params, self.widest)
        self._running[trial.ordinal] = asked

    def prune(self, trial: SearchTrial) -> bool:
        return report(self._running[trial.ordinal], *trial.values[-1])
