"""Evolution of formulas by genetic programming (EvoMAL: Raymond et al., arXiv 2209.08907; each individual is a trial)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from olfl_ray.errors import SpecError
from olfl_ray.search.filters import FIELD, Gradient, gains
from olfl_ray.search.genetics import Genetics, Individual
from olfl_ray.search.searcher import Searcher
from olfl_ray.search.space import Filtered, SearchTrial
from olfl_ray.seeds import seed_of
from olfl_ray.spec import Strict, as_tuple

__all__ = ["Evolution"]

BARREN = 100
"""After this many generations (asynchronous: children) in a row without a new candidate, the next ones are random. After the same
number of random ones without a new candidate, the search is exhausted."""


class Evolution(Searcher):
    """Genetic programming over one formula, alone or together with other fields.

    A candidate is a formula in canonical form, with the values of the other fields. Each is tried once: an individual that is
    equal to an earlier candidate takes over its fitness (symbolic equivalence). Filters drop a candidate before it costs a
    trial. The fitness of a trial that was pruned, diverged or failed is the worst, and that of a rejected formula, too.

    generational: generation n is a function of the seed and of the fitness in the generations before it. So a search is rebuilt
    from the ledger, and no order of ends changes it. Its first proposal waits until all trials of the one before have ended.

    asynchronous: each proposal is a child of the best individuals of which the fitness is known then; none waits.
    """

    class Config(Strict):
        """Its settings; the defaults are those of the public code of EvoMAL."""

        population: Annotated[int, Field(ge=2, le=100_000)] = 25
        """Individuals of a generation. asynchronous: number of random individuals at the start, and of the best ones that may have
        children."""

        generations: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
        """Number of generations, the first of which is random; null: as many as the arm's number of trials allows."""

        mode: Literal["generational", "asynchronous"] = "generational"
        """generational (a generation waits for the one before) | asynchronous (no proposal waits)."""

        crossover: Annotated[float, Field(ge=0, le=1)] = 0.7
        """Probability that a child comes from a one-point crossover of two parents."""

        mutation: Annotated[float, Field(ge=0, le=1)] = 0.25
        """Probability that a child is a parent with one subtree replaced (uniform mutation). All other children are copies."""

        tournament: Annotated[int, Field(ge=1, le=100_000)] = 4
        """Individuals in a tournament; the fittest becomes a parent."""

        parsimony: Annotated[float, Field(ge=1, le=2)] = 1.0
        """The smaller of two formulas enters a tournament with probability parsimony / 2; 1: no preference for small formulas."""

        filters: Annotated[tuple[Literal["rejection", "gradient"], ...], BeforeValidator(as_tuple)] = (
            "rejection",
            "gradient",
        )
        """rejection: drop a loss that does not improve predictions optimised directly on it | gradient: drop a loss with the
        gradients of an earlier candidate on fixed predictions, and use that candidate's fitness. For loss.name expression."""

        @model_validator(mode="after")
        def _probabilities(self) -> Evolution.Config:
            if self.crossover + self.mutation > 1:
                raise ValueError(
                    f"`crossover + mutation <= 1` must hold, but crossover={self.crossover}, mutation={self.mutation}; "
                    "lower one"
                )
            return self

    config: Config
    formulas = True
    sees_running = True

    def check(self) -> None:
        found = [name for name, one in self.space.parameters.items() if one.expression is not None]
        if len(found) != 1 and self.space.parameters:
            problem = f"evolution searches one formula, but arm {self.space.arm!r} has {', '.join(found) or 'none'}"
            raise SpecError(
                "search.sampler",
                f"{problem}; search one, such as loss.formula: {{expression: {{}}}}, move the arm's other fields to its `set`, "
                "or use tpe",
            )

    @property
    def ordered(self) -> bool:
        return self.config.mode == "generational"

    def replay(self, trials: Iterable[SearchTrial], seed: int) -> None:
        super().replay(trials, seed)
        self._generation, self._spent = -1, False
        self._population: list[tuple[str, Individual]] = []
        self._archive: dict[str, dict[str, Any]] = {}
        self._rejected: set[str] = set()
        self._same: dict[str, str] = {}
        self._gradients: dict[str, Gradient] = {}
        self._recorded = sum(trial.filtered for trial in self.trials.values()) if self.ordered else 0
        self._ordinals: dict[str, int] = {}
        if self.space.parameters:
            for trial in self.trials.values():
                self._ordinals.setdefault(self._genetics.key(trial.params), trial.ordinal)

    def observe(self, trial: SearchTrial) -> None:
        super().observe(trial)
        if self.space.parameters:
            self._ordinals.setdefault(self._genetics.key(trial.params), trial.ordinal)

    @property
    def ready(self) -> bool:
        if not self.ordered or not self.space.parameters:
            return True
        self._advance()
        return self._spent or bool(self._waiting())

    @property
    def exhausted(self) -> bool:
        if not self.space.parameters:
            return False
        if self.ordered:
            self._advance()
            return self._spent
        limit = self.config.generations
        return limit is not None and len(self.trials) >= limit * self.config.population

    def suggest(self, ordinal: int) -> Mapping[str, Any] | None:
        if not self.space.parameters:
            return {}
        if not self.ordered:
            return self._child()
        self._advance()
        waiting = self._waiting()
        assert waiting or self._spent, "proposals wait until the generation's trials have ended"
        return self._archive[waiting[0]] if waiting else None

    @cached_property
    def _genetics(self) -> Genetics:
        config = self.config
        return Genetics(
            self.space,
            tournament=config.tournament,
            parsimony=config.parsimony,
            crossover=config.crossover,
            mutation=config.mutation,
        )

    def _waiting(self) -> list[str]:
        """Candidates of the generations without a trial, in their order."""
        return [key for key in self._archive if key not in self._ordinals]

    def _fitness(self, key: str) -> float:
        """The value of a candidate, to be minimised, whose trial has ended or that has none."""
        if key in self._rejected:
            return math.inf
        trial = self.trials[self._ordinals[self._same.get(key, key)]]
        if trial.state != "finished" or trial.value is None or not math.isfinite(trial.value):
            return math.inf
        return trial.value if self.space.goal == "minimize" else -trial.value

    def _advance(self) -> None:
        """Go to the newest generation that the known trials determine."""
        while not self._spent and self._complete():
            self._spent = not any(self._breed(scattered=turn >= BARREN) for turn in range(2 * BARREN))

    def _complete(self) -> bool:
        """Whether the fitness of every individual of the generation is known."""
        keys = [self._same.get(key, key) for key, _ in self._population if key not in self._rejected]
        return all(key in self._ordinals and self.trials[self._ordinals[key]].state != "running" for key in keys)

    def _breed(self, *, scattered: bool) -> bool:
        """Make the next generation; whether it has a new candidate.

        Args:
            scattered: Whether its individuals are random, as those of the first.
        """
        if self._generation + 1 == self.config.generations:
            return False
        self._generation += 1
        random, size = Random(seed_of(self.space.seed, "generation", self._generation)), self.config.population
        if scattered or not self._population:
            found = [self._genetics.drawn(random) for _ in range(size)]
            if self._generation == 0 and self.space.own is not None:
                found[0] = self._genetics.individual(self.space.own)
        else:
            for key, one in self._population:
                one.fitness.values = (self._fitness(key),)
            found = self._genetics.children([one for _, one in self._population], size, random)
        self._population = [(self._key(one), one) for one in found]
        before = len(self._archive)
        for key, one in self._population:
            point = self._genetics.point(one)
            if not self._drops(key, point, list(self._archive)):
                self._archive[key] = point
        return len(self._archive) > before

    def _key(self, one: Individual) -> str:
        return self._genetics.key(self._genetics.point(one))

    def _drops(self, key: str, point: Mapping[str, Any], candidates: Sequence[str]) -> bool:
        """Whether a filter drops an individual, and record it.

        Args:
            key: Its key.
            point: Its point.
            candidates: The keys of the candidates so far, in the order of their trials.
        """
        if key in self._rejected or key in self._same or key in candidates:
            self._drop("symbolic", point, self._same.get(key, key), candidates)
        elif "rejection" in self._filters and point != self.space.own and not gains(point[FIELD], self.space):
            self._rejected.add(key)
            self._drop("rejection", point, "", candidates)
        elif "gradient" in self._filters and (other := self._equivalent(key, point, candidates)):
            self._same[key] = other
            self._drop("gradient", point, other, candidates)
        else:
            return False
        return True

    def _drop(
        self,
        name: Literal["symbolic", "gradient", "rejection"],
        point: Mapping[str, Any],
        other: str,
        candidates: Sequence[str],
    ) -> None:
        if self._recorded:  # it is in the ledger: the generations are made again
            self._recorded -= 1
            return
        same_as = self._ordinals.get(other, candidates.index(other)) if other in candidates else None
        self.filtered.append(Filtered(filter=name, params=point, same_as=same_as))

    def _equivalent(self, key: str, point: Mapping[str, Any], candidates: Sequence[str]) -> str:
        """The first candidate with the same gradients and the same other values; empty if there is none."""
        for other in candidates:
            if other not in self._gradients:
                params = self._archive[other] if other in self._archive else self.trials[self._ordinals[other]].params
                self._gradients[other] = Gradient(params, self.space)
        self._gradients[key] = mine = Gradient(point, self.space)
        return next((other for other in candidates if self._gradients[other].equals(mine)), "")

    @cached_property
    def _filters(self) -> tuple[str, ...]:
        """Those that can be applied: the loss must be known, and what goes into it."""
        space = self.space
        known = space.task and self._genetics.field == FIELD and space.base["loss"]["name"] == "expression"
        return self.config.filters if known else ()

    def _child(self) -> dict[str, Any] | None:
        """A new candidate of the asynchronous search; None if there is none left."""
        size = self.config.population
        ended = [key for key, ordinal in self._ordinals.items() if self.trials[ordinal].state != "running"]
        best = sorted(ended, key=lambda key: (self._fitness(key), self._ordinals[key]))[:size]
        parents = [self._genetics.individual(self.trials[self._ordinals[key]].params) for key in best]
        for key, one in zip(best, parents, strict=True):
            one.fitness.values = (self._fitness(key),)
        for turn in range(2 * BARREN):
            if len(self._ordinals) < size or len(parents) < 2 or turn >= BARREN:
                found = self._genetics.drawn(self.random)
            else:
                found = self._genetics.children(parents, 1, self.random)[0]
            point = self._genetics.point(found)
            if not self._drops(self._key(found), point, list(self._ordinals)):
                return point
        return None
