"""Contract of trackers: each record is stored once, whenever a driver is killed and whatever is delivered again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olfl_ray.testing.studies import METRIC, HandMadeStudy, value_at
from olfl_ray.tracking import TrackedArm, TrackedStudy, Tracker

__all__ = ["Kept", "TrackerContract"]


@dataclass
class Kept:
    """A trial as read from a tracker's store.

    Args:
        records: (step, metric, value) of each record, duplicates included.
        state: How the trial ended; empty if it has not.
    """

    records: list[tuple[int, str, float]] = field(default_factory=list)
    state: str = ""


class TrackerContract:
    """Inherit it in a test module, and override `make` and `kept`; `intercept` enables the tests of lost connections."""

    def make(self, study: TrackedStudy) -> Tracker:
        """The tracker of a study; its store is in `study.storage` or `study.home`."""
        raise NotImplementedError

    def kept(self, study: TrackedStudy, identity: str) -> dict[str, Kept]:
        """The stored state of each trial of a study, read by code other than the tracker's."""
        raise NotImplementedError

    def intercept(self, tracker: Tracker, wrap: Callable[[Any], Any]) -> bool:
        """Wrap the tracker's connection to its store with `wrap`; whether that is possible."""
        return False

    def test_check_stores_nothing(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        self.make(made.tracked).check()
        assert self.kept(made.tracked, made.state.identity) == {}

    def test_each_record_is_stored_once_with_the_end_of_its_trial(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        for ordinal, end in enumerate(("finished", "pruned", "diverged", "failed")):
            made.run(f"online/{ordinal}", (10, 20), end)
        made.run("online/c0", (10,))
        self._deliver(made)
        self._holds(made)

    def test_planned_trial_is_not_stored(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        made.propose("online/0")
        self._deliver(made)
        assert self.kept(made.tracked, made.state.identity) == {}

    def test_a_trial_grows_while_it_runs(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        tracker = self._opened(made)
        for steps, end in (((10,), "stopped"), ((20, 30), None), ((), "finished")):
            made.run("online/0", steps, end)
            _deliver_trials(tracker, made)
            self._holds(made)

    def test_repeated_delivery_is_stored_once(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        made.run("online/0", (10, 20), "finished")
        made.run("online/1", (10,))
        tracker = self._opened(made)
        for _ in range(2):
            _deliver_trials(tracker, made)
            self._deliver(made)  # by another driver
        self._holds(made)

    def test_a_new_driver_keeps_what_an_earlier_one_delivered(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        made.run("online/0", (10, 20), "finished")
        made.run("online/1", (10,))
        self._deliver(made)
        made.run("online/1", (20,), "finished")
        _deliver_trials(self._opened(made), made, "online/1")
        self._holds(made)

    def test_retried_trial_is_stored_once(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        made.run("online/0", (10,), "failed")
        self._deliver(made)
        made.reopen("online/0")
        made.run("online/0", (20,), "finished")
        self._deliver(made)
        self._holds(made)

    def test_studies_with_the_same_name_are_not_mixed(self, tmp_path: Path) -> None:
        one, two = _made(tmp_path, "one"), _made(tmp_path, "two")
        one.run("online/0", (10,), "finished")
        two.run("online/0", (20, 30), "pruned")
        for made in (one, two, one):
            self._deliver(made)
        self._holds(one)
        self._holds(two)

    def test_undelivered_counts_what_is_missing(self, tmp_path: Path) -> None:
        made = _made(tmp_path)
        made.run("online/0", (10,), "finished")
        made.run("online/1", (10,), "pruned")
        assert self.make(made.tracked).undelivered(made.state) in (2, 3), "two trials; and the study, if it is stored"
        tracker = self._opened(made)
        _deliver_trials(tracker, made, "online/0")
        assert self.make(made.tracked).undelivered(made.state) >= 1
        _deliver_trials(tracker, made)
        tracker.close({}, status="FINISHED")
        assert self.make(made.tracked).undelivered(made.state) == 0
        made.run("online/2", (10,), "finished")
        assert self.make(made.tracked).undelivered(made.state) == 1

    def test_driver_killed_at_any_call_leaves_each_record_once(self, tmp_path: Path) -> None:
        for lost, again in ((False, False), (True, False), (True, True)):
            for call in itertools.count(1):
                made = _made(tmp_path, f"{lost}-{again}-{call}", f"home-{lost}-{again}-{call}")
                made.run("online/0", (10, 20), "finished")
                trouble = _Trouble(call, lost=lost)
                tracker = self.make(made.tracked)
                if not self.intercept(tracker, trouble.wrap):
                    return
                try:
                    _deliver_all(tracker, made)
                except ConnectionError:
                    _deliver_all(tracker if again else self.make(made.tracked), made)
                self._holds(made)
                assert self.make(made.tracked).undelivered(made.state) == 0
                if trouble.calls < call:
                    break

    def _opened(self, made: HandMadeStudy) -> Tracker:
        tracker = self.make(made.tracked)
        tracker.open(made.state.identity)
        return tracker

    def _deliver(self, made: HandMadeStudy) -> None:
        _deliver_trials(self._opened(made), made)

    def _holds(self, made: HandMadeStudy) -> None:
        wanted = {
            name: Kept(
                [(item.step, METRIC, value_at(item.step)) for item in trial.commits], trial.state if trial.ended else ""
            )
            for name, trial in made.state.trials.items()
        }
        assert self.kept(made.tracked, made.state.identity) == wanted


class _Trouble:
    """A connection whose n-th call fails: before it takes effect, or after, so that only its response is lost."""

    def __init__(self, at: int, *, lost: bool) -> None:
        self._at, self._lost, self.calls = at, lost, 0

    def wrap(self, target: Any) -> Any:
        return _Wrapped(target, self)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self._at and not self._lost:
            raise ConnectionError("the store is unreachable")
        found = function(*args, **kwargs)
        if self.calls == self._at:
            raise ConnectionError("the response is lost")
        return found


class _Wrapped:
    def __init__(self, target: Any, trouble: _Trouble) -> None:
        self._target, self._trouble = target, trouble

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._trouble.call(found, *args, **kwargs)


def _made(folder: Path, name: str = "study", home: str = "home") -> HandMadeStudy:
    return HandMadeStudy(folder / name, folder / home)


def _deliver_trials(tracker: Tracker, made: HandMadeStudy, *names: str) -> None:
    for name in names or made.state.trials:
        tracker.deliver(made.state.trials[name])


def _deliver_all(tracker: Tracker, made: HandMadeStudy) -> None:
    """Deliver a finished study as a driver does."""
    tracker.open(made.state.identity)
    _deliver_trials(tracker, made)
    settings = {"learner.optimizer.lr": 0.01}
    tracker.summarise([TrackedArm(arm="online", ended=1, best="online/0", settings=settings, metrics={"n": 2.0})])
    tracker.close({}, status="FINISHED")
