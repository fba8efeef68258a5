"""Which events the ledger's rules allow, and how they change the state."""

from __future__ import annotations

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
    Proposed,
    Stopped,
    StudyCreated,
    StudyState,
    apply,
)

CREATED = StudyCreated(spec={"seed": 0}, digest="d", name="n", versions={}, time=1.0)
DRIVER = DriverStarted(epoch=1, host="h", pid=1)
PROPOSED = Proposed(trial="a/0", params={"x": 1}, seeds=[5, 6], time=2.0)
BEGAN = Began(trial="a/0", attempt=1, time=3.0)


def committed(step: int, attempt: int = 1, value: float | None = 0.5) -> Committed:
    return Committed(trial="a/0", attempt=attempt, commit=f"c{step}", step=step, value=value, values={})


def ended(state: str = "finished", cause: str | None = None) -> Ended:
    return Ended(trial="a/0", state=state, step=9, value=0.1, metrics={"m": [0.0, 0.2]}, cause=cause, time=9.0)  # type: ignore[arg-type]


def replay(*events: Event) -> StudyState:
    state = None
    for event in events:
        state = apply(state, event)
    assert state is not None
    return state


STOPPED = Stopped(trial="a/0")
RUNNING = (CREATED, DRIVER, PROPOSED, BEGAN)

LEGAL: dict[str, tuple[Event, ...]] = {
    "begin, commit, end": (*RUNNING, committed(1), committed(2), ended()),
    "stop and begin again": (
        *RUNNING,
        committed(1),
        STOPPED,
        Began(trial="a/0", attempt=2),
        committed(2, attempt=2),
    ),
    "begin again after a lost worker": (*RUNNING, Began(trial="a/0", attempt=2)),
    "several commits of the initialization, at step 0": (
        *RUNNING,
        committed(0),
        replace(committed(0), commit="next"),
    ),
    "fail before the beginning": (CREATED, DRIVER, PROPOSED, ended("failed", "no such data set")),
    "end while stopped": (*RUNNING, STOPPED, ended("pruned")),
    "driver after driver, epochs skipped": (CREATED, DRIVER, DriverStarted(epoch=5, host="h", pid=2)),
    "driver leaves": (CREATED, DRIVER, DriverStopped(epoch=1, reason="done")),
}

ILLEGAL: dict[str, tuple[Event, ...]] = {
    "first event creates nothing": (DRIVER,),
    "created twice": (CREATED, CREATED),
    "epoch not increasing": (CREATED, DRIVER, DRIVER),
    "driver stopped that never started": (CREATED, DriverStopped(epoch=0, reason="")),
    "driver stopped twice": (CREATED, DRIVER, *2 * (DriverStopped(epoch=1, reason=""),)),
    "another driver stopped": (CREATED, DRIVER, DriverStopped(epoch=2, reason="")),
    "proposed twice": (CREATED, PROPOSED, PROPOSED),
    "proposed with a malformed id": (CREATED, Proposed(trial="a", params={}, seeds=[0])),
    "proposed without seeds": (CREATED, Proposed(trial="a/0", params={}, seeds=[])),
    "begun without proposal": (CREATED, BEGAN),
    "attempt not increasing": (*RUNNING, BEGAN),
    "attempt zero": (CREATED, PROPOSED, Began(trial="a/0", attempt=0)),
    "begun after its end": (*RUNNING, ended(), Began(trial="a/0", attempt=2)),
    "commit before the beginning": (CREATED, PROPOSED, committed(1)),
    "commit while stopped": (*RUNNING, STOPPED, committed(1)),
    "commit of an earlier attempt": (*RUNNING, Began(trial="a/0", attempt=2), committed(1, attempt=1)),
    "commit with a lower step": (*RUNNING, committed(2), committed(1)),
    "commit with a lower step in a later attempt": (
        *RUNNING,
        committed(2),
        Began(trial="a/0", attempt=2),
        committed(1, attempt=2),
    ),
    "commit with a negative step": (*RUNNING, committed(-1)),
    "commit recorded twice": (*RUNNING, committed(1), committed(1)),
    "commit after the end": (*RUNNING, ended(), committed(99)),
    "ended twice": (*RUNNING, ended(), ended()),
    "ended twice, differently": (*RUNNING, ended(), ended("failed", "why")),
    "finished before the beginning": (CREATED, PROPOSED, ended()),
    "failed without a cause": (*RUNNING, ended("failed")),
    "ended in an unknown state": (*RUNNING, ended("lost")),
    "stopped before the beginning": (CREATED, PROPOSED, STOPPED),
    "stopped twice": (*RUNNING, STOPPED, STOPPED),
    "stopped after the end": (*RUNNING, ended(), STOPPED),
    "an event of no kind": (CREATED, Event()),
}


@pytest.mark.parametrize("events", LEGAL.values(), ids=LEGAL.keys())
def test_rules_allow(events: tuple[Event, ...]) -> None:
    replay(*events)


@pytest.mark.parametrize("events", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_rules_forbid(events: tuple[Event, ...]) -> None:
    state = replay(*events[:-1]) if events[:-1] else None
    with pytest.raises(LedgerError) as caught:
        apply(state, events[-1])
    assert type(events[-1]).__name__ in str(caught.value)


def test_state_before_an_event_is_unchanged() -> None:
    before = replay(*RUNNING)
    after = apply(before, ended())
    assert before.trials["a/0"].state == "running"
    assert after.trials["a/0"].state == "finished"


def test_created_study_has_its_spec_versions_and_time() -> None:
    state = replay(CREATED)
    assert (state.name, state.digest, state.spec, state.created_at) == ("n", "d", {"seed": 0}, 1.0)
    assert (state.epoch, state.driving, state.trials) == (0, False, {})


def test_trial_follows_its_events() -> None:
    trial = replay(CREATED, PROPOSED).trials["a/0"]
    assert (trial.state, trial.attempt, trial.seeds, trial.params) == ("planned", 0, (5, 6), {"x": 1})
    assert (trial.proposed_at, trial.began_at, trial.ended_at, trial.ended) == (2.0, None, None, False)

    trial = replay(*RUNNING, committed(3, value=0.7)).trials["a/0"]
    assert (trial.state, trial.attempt, trial.step, trial.value) == ("running", 1, 3, 0.7)
    assert [commit.commit for commit in trial.commits] == ["c3"]

    trial = replay(*RUNNING, committed(3), STOPPED, Began(trial="a/0", attempt=4)).trials["a/0"]
    assert (trial.state, trial.attempt, trial.step, trial.began_at) == ("running", 4, 3, 3.0)

    trial = replay(*RUNNING, committed(3), ended("failed", "out of memory")).trials["a/0"]
    assert (trial.state, trial.cause, trial.step, trial.value) == ("failed", "out of memory", 9, 0.1)
    assert (trial.metrics, trial.ended_at, trial.ended) == ({"m": [0.0, 0.2]}, 9.0, True)


def test_trials_keep_the_order_of_their_proposal() -> None:
    names = ["b/1", "a/0", "b/c0", "a/10", "a/9"]
    state = replay(CREATED, *(Proposed(trial=name, params={}, seeds=[0]) for name in names))
    state = apply(state, Began(trial="a/0", attempt=1))
    assert list(state.trials) == names
