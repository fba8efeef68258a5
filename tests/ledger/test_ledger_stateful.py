"""Any order of events, crashes, compactions and second drivers: the ledger agrees with a plain model."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from olfl_ray.errors import Fenced, LedgerError
from olfl_ray.ledger import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Ledger,
    Proposed,
    Stopped,
)
from olfl_ray.storage import open_storage

ENDS = ("finished", "pruned", "diverged", "failed")


@dataclass
class Trial:
    """What the model knows of a trial."""

    state: str = "planned"
    attempt: int = 0
    step: int = 0
    commits: int = 0


trials = st.sampled_from(["a/0", "a/1", "b/0", "b/c0"])
small = st.integers(-1, 2)
rarely = st.sampled_from([0, 0, 0, 1])


class LedgerMachine(RuleBasedStateMachine):
    """One study, its present driver, and the drivers that it outlived."""

    @initialize()
    def create(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.storage = open_storage(self.root)
        self.ledger = Ledger.create(self.storage, {"seed": 0}, "d", "n", {})
        self.outlived: list[Ledger] = []
        self.trials: dict[str, Trial] = {}
        self.epoch, self.driving, self.count = 0, False, 1

    def teardown(self) -> None:
        if hasattr(self, "root"):
            assert Ledger.load(self.storage).events == self.ledger.events
            shutil.rmtree(self.root)

    def note(self, event: Event, legal: bool) -> bool:
        """Append; the ledger takes the event exactly if the model says that it is legal."""
        if legal:
            self.ledger.append(event)
            self.count += 1
        else:
            with pytest.raises(LedgerError) as caught:
                self.ledger.append(event)
            assert not isinstance(caught.value, Fenced)
        return legal

    @rule(trial=trials)
    def propose(self, trial: str) -> None:
        if self.note(Proposed(trial=trial, params={"lr": 0.1}, seeds=[0]), trial not in self.trials):
            self.trials[trial] = Trial()

    @rule(trial=trials, more=small)
    def begin(self, trial: str, more: int) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        attempt = model.attempt + more
        if self.note(
            Began(trial=trial, attempt=attempt), model.state in ("planned", "running", "stopped") and more > 0
        ):
            model.state, model.attempt = "running", attempt

    @rule(trial=trials, more=small, late=rarely, again=rarely)
    def commit(self, trial: str, more: int, late: int, again: int) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        step, number = model.step + more, max(1, model.commits + 1 - again)
        event = Committed(
            trial=trial, attempt=model.attempt - late, commit=f"k{number}", step=step, value=0.5, values={}
        )
        known = 1 <= number <= model.commits
        if self.note(event, model.state == "running" and step >= model.step and not late and not known):
            model.step, model.commits = step, model.commits + 1

    @rule(trial=trials, state=st.sampled_from(ENDS))
    def end(self, trial: str, state: Literal["finished", "pruned", "diverged", "failed"]) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        cause = "out of memory" if state == "failed" else None
        event = Ended(trial=trial, state=state, step=1, value=0.1, metrics={"m": [0.1]}, cause=cause)
        begun = model.state in ("running", "stopped")
        if self.note(event, begun or (model.state == "planned" and state == "failed")):
            model.state = state

    @rule(trial=trials)
    def stop(self, trial: str) -> None:
        model = self.trials.get(trial, Trial("unknown"))
        if self.note(Stopped(trial=trial), model.state == "running"):
            model.state = "stopped"

    @rule(more=small)
    def drive(self, more: int) -> None:
        if self.note(DriverStarted(epoch=self.epoch + more, host="h", pid=1), more > 0):
            self.epoch, self.driving = self.epoch + more, True

    @rule(more=rarely)
    def leave(self, more: int) -> None:
        if self.note(DriverStopped(epoch=self.epoch + more, reason="r"), self.driving and not more):
            self.driving = False

    @rule()
    def crash_and_load(self) -> None:
        before = self.ledger
        self.ledger = Ledger.load(self.storage)
        assert self.ledger.events == before.events
        assert self.ledger.state == before.state

    @rule()
    def second_driver_takes_over(self) -> None:
        self.outlived.append(self.ledger)
        self.ledger = Ledger.load(self.storage)
        self.drive(1)

    @rule()
    def outlived_drivers_wake_up(self) -> None:
        for ledger in self.outlived:
            with pytest.raises(Fenced):
                ledger.append(DriverStarted(epoch=10**6, host="h", pid=2))

    @rule()
    def compact(self) -> None:
        self.ledger.compact()

    @rule()
    def outlived_drivers_compact(self) -> None:
        for ledger in self.outlived:
            ledger.compact()

    @rule(cut=st.integers(0, 200))
    def compaction_is_torn(self, cut: int) -> None:
        if self.storage.exists("ledger/compacted.jsonl"):
            self.storage.write("ledger/compacted.jsonl", self.storage.read("ledger/compacted.jsonl")[:cut])

    @invariant()
    def ledger_agrees_with_the_model(self) -> None:
        if not hasattr(self, "root"):
            return
        state = self.ledger.state
        assert len(self.ledger.events) == self.count
        assert (state.epoch, state.driving) == (self.epoch, self.driving)
        assert list(state.trials) == list(self.trials)
        for name, model in self.trials.items():
            trial = state.trials[name]
            assert (trial.state, trial.attempt, len(trial.commits)) == (
                model.state,
                model.attempt,
                model.commits,
            )
            assert trial.ended == (model.state in ENDS)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
