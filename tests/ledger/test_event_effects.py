"""The effects of an event, field by field: a stop, a reopening, dropped commits, a revised spec."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from olfl_ray.errors import LedgerError
from olfl_ray.ledger import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Examined,
    Proposed,
    Reopened,
    Revised,
    Stopped,
    StudyCreated,
    StudyState,
    TrialState,
    apply,
)

CREATED = StudyCreated(spec={"seed": 0}, digest="d", name="n", versions={"torch": "2"}, time=1.0)
BEGAN = (Proposed(trial="a/0", params={"x": 1}, seeds=[5], time=2.0), Began(trial="a/0", attempt=1, time=3.0))
FAILED = Ended(trial="a/0", state="failed", step=9, value=0.9, metrics={"m": [0.9]}, cause="boom", time=9.0)


def committed(step: int, attempt: int = 1) -> Committed:
    return Committed(trial="a/0", attempt=attempt, commit=f"c{step}", step=step, value=step / 10, values={})


def replay(events: Iterable[Event]) -> StudyState:
    state = None
    for event in (CREATED, *events):
        state = apply(state, event)
    assert state is not None
    return state


def trial(*events: Event) -> TrialState:
    return replay((*BEGAN, *events)).trials["a/0"]


def test_trial_that_ran_out_of_memory_has_its_device_to_itself_from_then_on() -> None:
    assert not trial(Stopped(trial="a/0")).alone
    short = Stopped(trial="a/0", out_of_memory=True)
    assert trial(short).alone
    assert trial(short, Began(trial="a/0", attempt=2), Stopped(trial="a/0")).alone


def test_reopened_trial_is_stopped_after_its_last_commit_without_its_failure() -> None:
    now = trial(committed(3), committed(5), FAILED, Reopened(trial="a/0"))
    assert (now.state, now.ended, now.cause, now.metrics, now.scratch) == ("stopped", False, None, {}, 0)
    assert ([commit.step for commit in now.commits], now.step, now.value) == ([3, 5], 5, 0.5)
    assert trial(committed(3), FAILED, Reopened(trial="a/0"), Began(trial="a/0", attempt=2)).state == "running"


def test_trial_reopened_from_scratch_has_no_commits_and_discards_its_attempts() -> None:
    now = trial(committed(3), FAILED, Reopened(trial="a/0", scratch=1))
    assert (now.commits, now.step, now.value, now.scratch) == ((), 0, None, 1)
    again = trial(
        FAILED, Reopened(trial="a/0", scratch=4), Began(trial="a/0", attempt=5), FAILED, Reopened(trial="a/0")
    )
    assert again.scratch == 4, "discarded attempts stay discarded"


def test_trial_counts_as_retried_from_its_reopening_to_its_next_end() -> None:
    reopened = (FAILED, Reopened(trial="a/0"))
    assert not trial(FAILED).retried
    assert trial(*reopened).retried
    again = (*reopened, Began(trial="a/0", attempt=2))
    assert trial(*again, committed(3, attempt=2)).retried
    assert trial(*again, Stopped(trial="a/0")).retried
    assert not trial(*again, FAILED).retried


@pytest.mark.parametrize(
    ("before", "event"),
    [((), Reopened(trial="a/0")), ((FAILED,), Reopened(trial="a/0", scratch=-1)), ((), Reopened(trial="a/1"))],
    ids=["not failed", "attempt below 0", "never proposed"],
)
def test_a_reopening_is_refused(before: tuple[Event, ...], event: Event) -> None:
    with pytest.raises(LedgerError, match="Reopened"):
        trial(*before, event)


def test_dropped_commits_no_longer_count_and_the_trial_is_marked_permanently() -> None:
    intact = trial(committed(3), committed(5), Began(trial="a/0", attempt=2))
    assert ([commit.step for commit in intact.commits], intact.redone) == ([3, 5], False)
    corrupt = (committed(3), committed(5), Began(trial="a/0", attempt=2, dropped=["c5"]))
    now = trial(*corrupt)
    assert ([commit.step for commit in now.commits], now.step, now.value, now.redone) == ([3], 3, 0.3, True)
    assert trial(*corrupt, committed(5, attempt=2), Began(trial="a/0", attempt=3)).redone
    none_left = trial(committed(3), Began(trial="a/0", attempt=2, dropped=["c3"]))
    assert (none_left.commits, none_left.step, none_left.value) == ((), 0, None)


def test_stopped_trial_may_fail_and_keeps_its_first_start_time() -> None:
    now = trial(Began(trial="a/0", attempt=2, time=7.0), Stopped(trial="a/0"), FAILED)
    assert (now.state, now.began_at, now.ended_at, now.attempt) == ("failed", 3.0, 9.0, 2)


def test_a_study_follows_its_drivers_and_its_revisions() -> None:
    first = DriverStarted(epoch=2, host="h", pid=1)
    state = replay([first])
    assert (state.epoch, state.driving, state.versions) == (2, True, {"torch": "2"})
    state = replay([first, DriverStopped(epoch=2, reason="done"), Revised(spec={"seed": 1})])
    assert (state.epoch, state.driving, state.spec, state.digest) == (2, False, {"seed": 1}, "d")


def test_study_keeps_its_identity_and_an_older_one_derives_it_from_its_first_event() -> None:
    assert apply(None, replace(CREATED, identity="its-own")).identity == "its-own"
    for identity in ("../..", "a/b", "a' and tags.b = 'c", "a\n", "x" * 65):
        with pytest.raises(LedgerError, match="identity"):
            apply(None, replace(CREATED, identity=identity))
    derived = apply(None, CREATED).identity
    assert len(derived) == 16
    assert derived == apply(None, CREATED).identity
    assert derived != apply(None, replace(CREATED, time=2.0)).identity


def test_arm_is_examined_once_and_the_result_is_kept() -> None:
    found = Examined(
        arm="a", data="d1", code={}, task="classification", primary="error", goals={}, units={}, learns=True
    )
    state = replay([found, replace(found, arm="b", data="d2")])
    assert {arm: facts.data for arm, facts in state.facts.items()} == {"a": "d1", "b": "d2"}
    with pytest.raises(LedgerError, match="once"):
        apply(state, replace(found, data="d3"))


def test_step_of_a_commit_never_decreases() -> None:
    with pytest.raises(LedgerError, match="at least 7"):
        trial(committed(3), committed(7), committed(5))


def test_a_revised_spec_brings_its_digest_if_it_has_one() -> None:
    revised = replay([Revised(spec={"seed": 1}, digest="e")])
    assert (revised.spec, revised.digest) == ({"seed": 1}, "e")
    assert replay([Revised(spec={"seed": 1})]).digest == "d"


def test_identity_of_a_ledger_without_one_is_the_same_in_every_version() -> None:
    assert replay([]).identity == "24a4b4936d394b4c"
