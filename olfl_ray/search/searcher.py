"""A searcher: proposes the settings of an arm's next trial, and ends trials early."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

from olfl_ray.search.space import Filtered, SearchTrial, Space
from olfl_ray.spec import Parameter, Strict

__all__ = ["Searcher"]


class Searcher(ABC):
    """Searches one arm. A subclass is one file; it must implement at least `suggest`.

    It stores nothing. Each start of a study creates it again, and `replay` passes it the trials of the ledger. With
    `search.deterministic` it is created again for each proposal, with the trials that the proposal may see. The first trial
    of an arm has the spec's own values, and in a small space a point that was tried before is replaced. Therefore `observe`
    passes the point that a trial actually has.

    Args:
        config: The settings next to its name in `search.sampler`.
        space: The search space.
    """

    class Config(Strict):
        """Its settings; a subclass with settings overrides this class."""

    formulas: ClassVar[bool] = False
    """Whether it searches formulas (`expression`), too."""
    sees_running: ClassVar[bool] = False
    """Whether a deterministic search also shows it, as running, the trials whose results a proposal may not see."""

    config: Any
    trials: dict[int, SearchTrial]
    """The known trials by ordinal."""
    random: Random
    """Random number generator, seeded by `replay`."""
    filtered: list[Filtered]
    """Candidates that were dropped on the way to a proposal; the ledger records them with it, and the list is emptied."""

    def __init__(self, config: Any, space: Space) -> None:
        self.config, self.space = config, space
        self.trials, self.random, self.filtered = {}, Random(0), []

    def check(self) -> None:  # noqa: B027  (most search any space)
        """Refuse a space that it can't search, before anything starts.

        Raises:
            SpecError: Names the field, the rule and the next move.
        """

    def replay(self, trials: Iterable[SearchTrial], seed: int) -> None:
        """Start from the known trials; called once, before any other method but `check`.

        Args:
            trials: Ended and running trials, in the order of their proposals.
            seed: Seed of later proposals: the same trials and the same seed give the same proposals.
        """
        self.trials, self.random = {trial.ordinal: trial for trial in trials}, Random(seed)

    def draw(self, name: str, parameter: Parameter) -> Any:
        """A random value of a field; `self.space.point(self.draw)` is a random point."""
        if parameter.values is not None:
            return self.random.choice(parameter.values)
        if parameter.expression is not None:
            raise NotImplementedError("a searcher of formulas draws them itself")
        low, high = parameter.min, parameter.max
        assert low is not None
        assert high is not None
        if parameter.is_integer and not parameter.log:
            return self.random.randint(int(low), int(high))
        share = self.random.random()
        value = low * (high / low) ** share if parameter.log else low + (high - low) * share
        return round(value) if parameter.is_integer else min(value, high)

    @property
    def ordered(self) -> bool:
        """Whether its proposals depend on no order of ends: it has its own rule of what each proposal may see.

        A deterministic search then passes it every end as it comes, and does not create it again.
        """
        return False

    @property
    def ready(self) -> bool:
        """Whether it can propose now; else it waits for a running trial to end."""
        return True

    @property
    def exhausted(self) -> bool:
        """Whether it has nothing more to propose; the arm's search is then complete."""
        return False

    @abstractmethod
    def suggest(self, ordinal: int) -> Mapping[str, Any] | None:
        """The point of a trial: the value of each searched field whose conditions hold (see `Space.point`).

        Called only where the searcher is `ready`.

        Args:
            ordinal: The trial's number within the arm.

        Returns:
            None where there is nothing more to propose.
        """

    def observe(self, trial: SearchTrial) -> None:
        """Record a trial that starts, with its actual point, or that has ended."""
        self.trials[trial.ordinal] = trial

    def prune(self, trial: SearchTrial) -> bool:
        """Whether a running trial ends early; called at the steps at which `search.pruner` decides.

        Args:
            trial: The trial; the last of its values is the new one.
        """
        from olfl_ray.search.pruning import prunes

        known = replace(trial, values=trial.values[:-1])
        self.trials[trial.ordinal] = trial
        others = [other for ordinal, other in self.trials.items() if ordinal != trial.ordinal]
        return prunes(self.space, [*others, known], trial)
