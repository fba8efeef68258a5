"""Every built-in pruner fulfills the contract, and the contract rejects pruners that do not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from optuna.pruners import BasePruner

from olfl_ray.errors import SpecError
from olfl_ray.pruners import PRUNERS, Pruner, pruner_of
from olfl_ray.spec import PrunerSpec
from olfl_ray.testing import PrunerContract


class TestSuccessiveHalving(PrunerContract):
    name = "asha"
    options = {"min_steps": 10}  # noqa: RUF012


class TestMedian(PrunerContract):
    name = "median"
    options = {"min_steps": 10}  # noqa: RUF012


class TestNone(PrunerContract):
    name = "none"


def test_each_built_in_one_is_tested() -> None:
    tested = {kind.name for kind in (TestSuccessiveHalving, TestMedian, TestNone)}
    assert tested == set(PRUNERS.names())


CALLS = itertools.count()


class EveryOther(BasePruner):
    def prune(self, study: Any, trial: Any) -> bool:
        return next(CALLS) % 2 == 0


class Counting(Pruner):
    """Misses steps that no evaluation is exactly at, and has a rule that depends on how often this process asked."""

    def decides(self, before: int, step: int) -> bool:
        return step % 100 == 0

    def rule(self) -> BasePruner:
        return EveryOther()


@pytest.mark.parametrize("test", [name for name in dir(PrunerContract) if name.startswith("test_")])
def test_the_contract_finds_what_breaks_it(test: str) -> None:
    class Suite(PrunerContract):
        name = f"{__name__}:Counting"

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


def test_a_users_settings_are_checked() -> None:
    with pytest.raises(SpecError, match=r"^search\.pruner\.min_step: .*did you mean 'search\.pruner\.min_steps'"):
        pruner_of(PrunerSpec(name=f"{__name__}:Counting", min_step=3))  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"^search\.pruner\.name: .*is not a subclass of Pruner"):
        pruner_of(PrunerSpec(name=f"{__name__}:EveryOther"))
