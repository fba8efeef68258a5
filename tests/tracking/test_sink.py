"""The sink's thread: what it delivers together, how long it waits, when it gives up."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from olfl_ray.ledger import TrialState
from olfl_ray.tracking import Sink, parent_status
from olfl_ray.tracking import sink as sink_file
from olfl_ray.tracking.json_lines import JsonLines

Homes = Callable[..., Any]


@pytest.fixture
def store() -> str:
    """These studies deliver to JSON lines: no MLflow."""
    return ""


class Watched(JsonLines):
    """Records its deliveries; each waits for the gate, and the first calls that reach the store are refused."""

    def __init__(self, home: Any, *, refusals: int = 0, closed: bool = False) -> None:
        super().__init__(JsonLines.Config(), home.tracked)
        self.delivered: list[tuple[str, str]] = []
        self.refusals, self.opened = refusals, 0
        self.reached, self.gate = threading.Event(), threading.Event()
        if not closed:
            self.gate.set()

    def open(self, identity: str) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise ConnectionError("the store is down")
        super().open(identity)
        self.opened += 1

    def deliver(self, trial: TrialState) -> None:
        self.reached.set()
        self.gate.wait()
        super().deliver(trial)
        self.delivered.append((str(trial.id), trial.state))


class Pauses(threading.Event):
    """Records how long the thread would pause, and does not pause."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return self.is_set()


def status(home: Any) -> str:
    return str(json.loads(home.storage.read("tracking/study.jsonl"))["status"])


def observed(sink: Sink, home: Any, name: str, **changes: Any) -> None:
    home.trial(name, **changes)
    sink.observe(home.ledger.events[-1], home.state)


def test_events_after_a_pause_are_delivered_too(home: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_file, "GATHER_SECONDS", 0.01)
    own = home()
    tracker = Watched(own)
    sink = Sink(tracker, own.state.identity)
    sink.start(own.state)
    sink._thread.join(0.3)
    sink.observe(own.ledger.events[0], own.state)  # the study's creation, no trial's
    observed(sink, own, "online/0")
    assert tracker.reached.wait(60), "without waiting for the end of the study"
    assert sink.close({}, status="FINISHED") == 0
    assert tracker.delivered == [("online/0", "finished")]
    assert status(own) == "FINISHED"


def test_a_sink_that_waits_for_events_ends_when_it_is_closed(home: Homes) -> None:
    own = home()
    sink = Sink(Watched(own), own.state.identity)
    assert sink.problem == ""
    sink.start(own.state)
    sink._thread.join(0.3)
    assert sink.close({}, status="FINISHED", patience=20.0) == 0
    assert status(own) == "FINISHED"


def test_events_that_follow_each_other_are_delivered_once_together(
    home: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_file, "GATHER_SECONDS", 60.0)
    own = home()
    tracker = Watched(own)
    sink = Sink(tracker, own.state.identity)
    sink.start(own.state)
    observed(sink, own, "online/0", steps=(10,), end=None)
    assert not tracker.reached.wait(0.3)
    observed(sink, own, "online/0", steps=(20,))
    assert sink.close({}, status="FINISHED") == 0
    assert tracker.delivered == [("online/0", "finished")]


def test_a_state_that_changes_during_its_delivery_is_delivered_again(home: Homes) -> None:
    own = home()
    own.trial("online/0", steps=(10,), end=None)
    tracker = Watched(own, closed=True)
    sink = Sink(tracker, own.state.identity)
    sink.start(own.state)
    assert tracker.reached.wait(60)
    observed(sink, own, "online/0", steps=(20,))
    tracker.gate.set()
    assert sink.close({}, status="FINISHED") == 0
    assert tracker.delivered == [("online/0", "running"), ("online/0", "finished")]
    assert tracker.opened == 1


def test_an_abandoned_sink_delivers_nothing_more(home: Homes) -> None:
    own = home()
    own.trial("online/0")
    own.trial("online/1")
    tracker = Watched(own, closed=True)
    sink = Sink(tracker, own.state.identity)
    sink.start(own.state)
    assert tracker.reached.wait(60)
    sink.abandon()
    tracker.gate.set()
    sink._thread.join(60)
    assert not sink._thread.is_alive()
    assert tracker.delivered == [("online/0", "finished")]
    assert status(own) == "RUNNING"


def test_a_store_that_does_not_respond_is_given_up_after_the_patience(home: Homes) -> None:
    own = home()
    own.trial("online/0")
    own.trial("online/1")
    tracker = Watched(own, closed=True)
    sink = Sink(tracker, own.state.identity)
    sink.start(own.state)
    assert tracker.reached.wait(60)
    sink.drain(patience=0.1)
    begun = time.monotonic()
    assert sink.close({}, status="FINISHED", patience=60.0) == 3, "two trials and the study"
    assert time.monotonic() - begun < 30, "the patience is not spent twice"
    assert sink._thread.daemon, "it does not keep the process from ending"
    assert status(own) == "RUNNING"
    sink.abandon()
    tracker.gate.set()
    sink._thread.join(60)


@pytest.mark.parametrize(("refused", "accepted"), [("online/0", ["online/1"]), ("online/1", ["online/0", "online/2"])])
def test_a_study_stays_open_if_a_trial_is_missing(refused: str, accepted: list[str], home: Homes) -> None:
    own = home()
    for name in sorted([refused, *accepted]):
        own.trial(name)

    attempts = []

    class Refused(Watched):
        def deliver(self, trial: TrialState) -> None:
            attempts.append(str(trial.id))
            if str(trial.id) == refused:
                raise ValueError("refused for good\nat line 3")
            super().deliver(trial)

    tracker = Refused(own)
    sink = Sink(tracker, own.state.identity)
    sink._closing.set()
    sink.start(own.state)
    assert sink.close({}, status="FINISHED") == 1
    assert sink.problem == "refused for good"
    assert [name for name, _ in tracker.delivered] == accepted
    assert attempts == [*sorted([refused, *accepted]), refused], "once more, after the others"
    assert status(own) == "KILLED"


def test_a_study_whose_end_is_refused_is_missing(home: Homes) -> None:
    own = home()
    own.trial("online/0")

    class Refused(Watched):
        def close(self, files: Any, *, status: str) -> None:
            raise ConnectionError

    sink = Sink(Refused(own), own.state.identity)
    sink.start(own.state)
    assert sink.close({}, status="FINISHED") == 1
    assert sink.problem == "ConnectionError"


def test_attempts_to_reach_a_store_become_rarer_up_to_every_15_seconds(home: Homes) -> None:
    own = home()
    tracker = Watched(own, refusals=7)
    sink = Sink(tracker, own.state.identity)
    sink._closing = pauses = Pauses()
    sink.start(own.state)
    observed(sink, own, "online/0")
    assert tracker.reached.wait(60)
    assert sink.close({}, status="FINISHED") == 0
    gathering, *between = pauses.seconds[:8]
    assert gathering == 0.5
    assert between == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert sink.problem == "the store is down"


def test_a_store_that_was_down_at_the_end_is_tried_once(home: Homes) -> None:
    own = home()
    for name in ("online/0", "online/1", "online/2"):
        own.trial(name)
    tracker = Watched(own, refusals=9)
    sink = Sink(tracker, own.state.identity)
    sink._closing.set()
    sink.start(own.state)
    sink._thread.join(60)
    assert tracker.refusals == 8
    assert sink.close({}, status="FINISHED") == 4


def test_a_study_failed_if_no_trial_finished(home: Homes) -> None:
    own = home()
    own.trial("online/0", end="failed")
    own.trial("online/1", end="diverged")
    assert parent_status(own.state) == "FAILED"
    own.trial("online/2")
    assert parent_status(own.state) == "FINISHED"
