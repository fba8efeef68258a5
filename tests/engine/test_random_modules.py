"""Two hundred random modules: every mode of the engine equals a plain loop differentiated twice, or is refused by name."""

import importlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.plain_loop import WAYS, check, check_learner

OTHERS = [way for way in WAYS if way != "auto"]
PART = 25
"""Number of modules per test."""


@pytest.mark.parametrize("part", range(4))
def test_ordinary_modules_train_like_a_plain_loop_and_are_never_refused(part: int) -> None:
    for seed in range(part * PART, (part + 1) * PART):
        words, _, outcomes = check(seed, odd=False, ways=["auto", OTHERS[seed % len(OTHERS)]])
        if seed % 4 == 0:
            outcomes.append(check_learner(seed, odd=False, way="auto"))
        for found in outcomes:
            assert found.verdict != "wrong", f"seed {seed}, {found.way}: {found.why} | {words}"
            refusable = found.way in (
                "exact low",
                "finite difference",
            )  # neither supports an embedding's padding_idx, for example
            assert found.verdict == "equal" or refusable, f"seed {seed}, {found.way}: {found.why} | {words}"


@pytest.mark.parametrize("part", range(4))
def test_unusual_modules_train_like_a_plain_loop_or_are_refused(part: int) -> None:
    for seed in range(part * PART, (part + 1) * PART):
        words, _, outcomes = check(seed, odd=True, ways=["auto", OTHERS[seed % len(OTHERS)]])
        if seed % 4 == 0:
            outcomes.append(check_learner(seed, odd=True, way="auto"))
        for found in outcomes:
            assert found.verdict != "wrong", f"seed {seed}, {found.way}: {found.why} | {words}"


def test_gate_that_opens_at_the_second_step_is_refused_there() -> None:
    found = check_learner(13715, odd=True, way="auto low")
    assert found.verdict == "refused", found.why
    assert "no longer is" in found.why


def by_a_percent(function: Callable) -> Callable:
    def planted(*parts, **settings):
        result = function(*parts, **settings)
        return replace(result, phi_grad={name: 1.01 * value for name, value in result.phi_grad.items()})

    return planted


@pytest.mark.parametrize("way", WAYS)
def test_error_of_one_percent_is_found_in(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = importlib.import_module("olfl_ray.engine.estimators.choice")
    monkeypatch.setattr(choice, "WAYS", {name: by_a_percent(run) for name, run in choice.WAYS.items()})
    # Seed 0 has SGD: for the step of a cold Adam no difference is computed.
    _, _, (found,) = check(0, odd=False, ways=[way])
    assert found.verdict == "wrong"
    assert "phi" in found.why
