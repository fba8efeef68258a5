"""A pruner: the steps at which it decides, and a rule of Optuna's kind that ends a trial there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from olfl_ray.registry import Registry
from olfl_ray.spec import NamedPart, PrunerSpec, Steps, Strict, checked_options

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["PRUNERS", "Pruner", "pruner_of"]


class Pruner(NamedPart, ABC):
    """Ends trials early. A subclass is one file; it must implement at least `rule`.

    A trial commits at the first evaluation from each decision step on, and the rule sees the searched metric there.
    """

    class Config(Strict):
        """Settings that all built-in ones accept, so that one replaces another by its name. A subclass may replace this class."""

        min_steps: Steps = 200
        """Base steps before the first decision."""
        reduction: Annotated[int, Field(ge=2, le=10**9)] = 3
        """Of asha: at each decision one in `reduction` trials continues, and the steps to the next one grow by this factor. The
        others ignore it."""

    def decides(self, before: int, step: int) -> bool:
        """Whether there is a decision after `before` base steps and up to `step`. Default: every `min_steps`."""
        every: int = self.config.min_steps
        return step // every > before // every

    @abstractmethod
    def rule(self) -> BasePruner:
        """The rule: a pruner of Optuna, or a subclass of `optuna.pruners.BasePruner`.

        It sees an Optuna study of the arm's trials, with their values at the decisions so far. Optuna is imported here, not by
        the module: workers, which only ask when it decides, start faster without it.
        """


PRUNERS = Registry("olfl_ray.pruners", Pruner)  # type: ignore[type-abstract]
"""Pruners by name; a user's own is `package.module:Class`."""


def pruner_of(section: PrunerSpec) -> Pruner:
    """The pruner that a spec names, with its settings.

    Raises:
        SpecError: There is none of that name, or it has no such settings.
    """
    found = PRUNERS.find(section.name, "search.pruner.name")
    return found(checked_options(found.Config, section.options, "search.pruner"))
