"""Any order of events, crashes, truncated compactions and second drivers: the ledger agrees with a simple model."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from olfl_ray.errors import Fenced, LedgerError, SetupError, StudyError
from olfl_ray.ledger import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Ledger,
    Proposed,
    Reopened,
    Revised,
    Stopped,
    StudyState,
    apply,
)
from olfl_ray.storage import Lease, Storage, open_storage

ENDS = ("finished", "pruned", "diverged", "failed")
Fate = Literal["lives", "dies before", "dies after", "gets no response"]


class Killed(BaseException):
    """The driver's process has died."""


class Mortal:
    """A real storage whose next `create` may kill its driver."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.url = storage.url
        self.fate: Fate = "lives"

    def __getattr__(self, name: str):
        return getattr(self._storage, name)

    def create(self, key: str, data: bytes) -> bool:
        fate, self.fate = self.fate, "lives"
        if fate == "dies before":
            raise Killed
        won = self._storage.create(key, data)
        if fate == "dies after":
            raise Killed
        if fate == "gets no response":
            raise SetupError("the store does not answer")
        return won


@dataclass
class Trial:
    """The model's state of a trial."""

    state: str = "planned"
    attempt: int = 0
    commits: list[tuple[str, int]] = field(default_factory=list)
    ends: int = 0
    reopened: int = 0

    @property
    def step(self) -> int:
        return self.commits[-1][1] if self.commits else 0


trials = st.sampled_from(["a/0", "b/c0"])
small = st.sampled_from([1, 1, 1, 2, 0, -1])


class LedgerMachine(RuleBasedStateMachine):
    """One study, its current driver with its lease, and the drivers that lost it."""

    def __init__(self, places: Iterator[Storage]) -> None:
        super().__init__()
        self.places = places

    @initialize()
    def create(self) -> None:
        self.storage = Mortal(next(self.places))
        self.lease = Lease.acquire(self.storage, "driver", ttl=1000.0)
        self.ledger = Ledger.create(self.storage, {"trials": 1}, "d", "n", {})
        self.outlived: list[tuple[Lease, Ledger]] = []
        self.trials: dict[str, Trial] = {}
        self.epoch, self.driving, self.count, self.budget = 0, False, 1, 1

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            assert Ledger.load(self.storage).events == self.ledger.events
            for lease in (self.lease, *(lease for lease, _ in self.outlived)):
                lease.release()

    def note(self, event: Event, legal: bool) -> bool:
        """Append; whether the event is recorded, which is so if it is legal and the driver lived."""
        fate = self.storage.fate
        if not legal:
            with pytest.raises(LedgerError) as caught:
                self.ledger.append(event)
            assert not isinstance(caught.value, Fenced)
            return False
        try:
            self.ledger.append(event)
        except SetupError:
            self.ledger.append(event)
        except Killed:
            self.ledger = Ledger.load(self.storage)
        self.count += fate != "dies before"
        assert len(self.ledger.events) == self.count
        return fate != "dies before"

    @rule(fate=st.sampled_from(["dies before", "dies after", "gets no response"]))
    def next_event_is_cut_short(self, fate: Fate) -> None:
        self.storage.fate = fate

    @rule(trial=trials)
    def propose(self, trial: str) -> None:
        if self.note(Proposed(trial=trial, params={"lr": 0.1}, seeds=[0]), trial not in self.trials):
            self.trials[trial] = Trial()

    @rule(trial=trials, more=small, dropped=st.integers(0, 2))
    def begin(self, trial: str, more: int, dropped: int) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        attempt, gone = model.attempt + more, model.commits[len(model.commits) - dropped :] if dropped else []
        event = Began(trial=trial, attempt=attempt, dropped=[name for name, _ in gone])
        if self.note(event, model.state in ("planned", "running", "stopped") and more > 0):
            model.state, model.attempt = "running", attempt
            model.commits = [commit for commit in model.commits if commit not in gone]

    @rule(trial=trials, more=st.integers(0, 2))
    def commit(self, trial: str, more: int, name: str = "", late: int = 0) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        name, step = name or f"{trial}/{model.attempt}/{self.count}", model.step + more
        event = Committed(trial=trial, attempt=model.attempt - late, commit=name, step=step, value=0.5, values={})
        known = name in [before for before, _ in model.commits]
        if self.note(event, model.state == "running" and more >= 0 and not late and not known):
            model.commits.append((name, step))

    @rule(trial=trials)
    def worker_that_was_given_up_commits(self, trial: str) -> None:
        self.commit(trial, -1)
        self.commit(trial, 1, late=1)
        for name, _ in self.trials.get(trial, Trial("unknown")).commits:
            self.commit(trial, 1, name)

    @rule(trial=trials, state=st.sampled_from(ENDS))
    def end(self, trial: str, state: str) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        cause = "out of memory" if state == "failed" else None
        event = Ended(trial=trial, state=state, step=1, value=0.1, metrics={"m": [0.1]}, cause=cause)
        begun = model.state in ("running", "stopped") and model.attempt > 0
        if self.note(event, begun or (model.state in ("planned", "stopped") and state == "failed")):
            model.state, model.ends = state, model.ends + 1

    @rule(trial=trials)
    def stop(self, trial: str) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        if self.note(Stopped(trial=trial), model.state == "running"):
            model.state = "stopped"

    @rule(
        trial=trials,
        dropped=st.integers(0, 2),
        steps=st.integers(1, 3),
        state=st.sampled_from(["running", *ENDS]),
    )
    def live(self, trial: str, dropped: int, steps: int, state: str) -> None:
        """The usual life of a trial, so that illegal events are tried in every state, not only in the first."""
        self.propose(trial)
        self.begin(trial, 1, dropped)
        for _ in range(steps):
            self.commit(trial, 1)
        if state != "running":
            self.end(trial, state)

    @rule(trial=trials, scratch=st.booleans())
    def retry(self, trial: str, scratch: bool) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        left = model.attempt if scratch else 0
        if self.note(Reopened(trial=trial, scratch=left), model.state == "failed"):
            model.state, model.reopened = "stopped", model.reopened + 1
            model.commits = [] if left else model.commits

    @rule(more=st.integers(1, 3))
    def extend(self, more: int) -> None:
        if self.note(Revised(spec={"trials": self.budget + more}), True):
            self.budget += more

    @rule(more=small, leave=st.booleans())
    def drive(self, more: int, leave: bool = False) -> None:
        if leave:
            if self.note(DriverStopped(epoch=self.epoch + more - 1, reason="r"), self.driving and more == 1):
                self.driving = False
        elif self.note(DriverStarted(epoch=self.epoch + more, host="h", pid=1), more > 0):
            self.epoch, self.driving = self.epoch + more, True

    @rule()
    def crash_and_load(self) -> None:
        before, self.ledger = self.ledger, Ledger.load(self.storage)
        assert self.ledger.events == before.events
        assert self.ledger.state == before.state

    @rule()
    def second_driver_is_refused(self) -> None:
        with pytest.raises(StudyError, match="held by driver"):
            Lease.acquire(self.storage, "second")

    @rule()
    def second_driver_takes_over_from_one_that_looks_dead(self) -> None:
        key = f"lease/{self.lease.epoch:09d}.json"
        self.storage.write(key, json.dumps(json.loads(self.storage.read(key)) | {"born": "long ago"}).encode())
        self.storage.fate = "lives"
        self.outlived.append((self.lease, self.ledger))
        self.lease = Lease.acquire(self.storage, "driver", ttl=1000.0, above=self.epoch)
        self.ledger = Ledger.load(self.storage)
        assert self.lease.epoch > max(self.epoch, self.outlived[-1][0].epoch)
        self.drive(self.lease.epoch - self.epoch)

    @rule()
    def outlived_drivers_wake_up(self) -> None:
        self.storage.fate = "lives"
        before = self.storage.keys("ledger/")
        for lease, ledger in self.outlived:
            assert lease.lost
            with pytest.raises(Fenced):
                lease.renew()
            for event in (DriverStarted(epoch=10**6, host="h", pid=2), Revised(spec={"trials": 0})):
                with pytest.raises(Fenced):
                    ledger.append(event)
        assert self.storage.keys("ledger/") == before

    @rule(anyone=st.integers(0, 3))
    def compact(self, anyone: int) -> None:
        [self.ledger, *(ledger for _, ledger in self.outlived)][anyone % (1 + len(self.outlived))].compact()

    @rule(cut=st.integers(0, 200))
    def compaction_is_truncated(self, cut: int) -> None:
        if self.storage.exists("ledger/compacted.jsonl"):
            self.storage.write("ledger/compacted.jsonl", self.storage.read("ledger/compacted.jsonl")[:cut])

    @invariant()
    def ledger_agrees_with_the_model(self) -> None:
        if not hasattr(self, "storage"):
            return
        state = self.ledger.state
        assert len(self.ledger.events) == self.count
        assert (state.epoch, state.driving, state.spec["trials"]) == (self.epoch, self.driving, self.budget)
        assert list(state.trials) == list(self.trials)
        for name, model in self.trials.items():
            trial = state.trials[name]
            assert (trial.state, trial.attempt, trial.ended) == (model.state, model.attempt, model.state in ENDS)
            assert [(commit.commit, commit.step) for commit in trial.commits] == model.commits
            assert trial.ended or trial.step == model.step

    @invariant()
    def each_trial_ends_once_and_its_steps_never_fall(self) -> None:
        if not hasattr(self, "storage"):
            return
        replayed: StudyState | None = None
        for event in self.ledger.events:
            replayed = apply(replayed, event)
        assert replayed == self.ledger.state
        for name, model in self.trials.items():
            ends = sum(isinstance(event, Ended) and event.trial == name for event in self.ledger.events)
            assert ends == model.ends
            assert ends - model.reopened == (model.state in ENDS)
            steps = [commit.step for commit in self.ledger.state.trials[name].commits]
            assert steps == sorted(steps)
            names = [event.commit for event in self.ledger.events if isinstance(event, Committed)]
            assert len(set(names)) == len(names)


def run(places: Iterator[Storage], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(places),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_ledger_on_a_disk_agrees_with_the_model_in_any_order(tmp_path: Path) -> None:
    run((open_storage(tempfile.mkdtemp(dir=tmp_path)) for _ in itertools.count()), examples=40, steps=30)


def test_ledger_on_an_object_store_agrees_with_the_model_in_any_order(s3_place: str) -> None:
    run((open_storage(f"{s3_place}/{number}") for number in itertools.count()), examples=10, steps=20)
