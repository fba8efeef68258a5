"""The conductor of a study: which trial is next, how a worker's message is handled, when a trial ends; all through the ledger."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from olfl_ray.errors import SetupError
from olfl_ray.ledger import (
    Began,
    Commit,
    Committed,
    Ended,
    Event,
    Ledger,
    Proposed,
    Stopped,
    StopRequest,
    StudyState,
    TrialState,
)
from olfl_ray.methods import method_of
from olfl_ray.pruners import pruner_of
from olfl_ray.search import ArmSearch
from olfl_ray.spec import StudySpec, TrialConfig, planned, seed_of, trial_config
from olfl_ray.worker import Message

__all__ = ["Conductor"]

Observer = Callable[[Event], None]
Decided = dict[str, list[tuple[int, float]]]
"""Metric values of each trial at the pruner's decision steps."""


class Conductor:
    """Makes a study's decisions; it neither trains nor uses Ray.

    Args:
        spec: The study.
        ledger: Its ledger, already held by this driver.
        stop: The request to stop this driver.
        observers: Called with each event after it is durable.
        only: The only trials to run; None: all that the study lacks.
    """

    def __init__(
        self,
        spec: StudySpec,
        ledger: Ledger,
        stop: StopRequest,
        observers: tuple[Observer, ...] = (),
        only: Collection[str] | None = None,
    ) -> None:
        self._only = only
        self.spec, self.ledger, self.stop, self._observers = spec, ledger, stop, observers
        self._live: set[str] = set()
        self._decided: Decided = {}
        self._pruner = pruner_of(spec.search.pruner)
        self._started = time.monotonic()
        self._planned = {arm: planned(spec, arm) for arm in spec.arms}
        self._searches: dict[str, ArmSearch] = {}
        # Indexed separately, so that the cost of a message does not grow with the number of trials.
        self._searched: dict[str, dict[str, TrialState]] = {arm: {} for arm in spec.arms}
        self._open: dict[str, None] = {}
        for trial in self._trials():
            self._keep(trial)
            # Only these trials had a decision at their last commit. It is the end of a finished or diverged one; that of a
            # running trial is reported again.
            commits = trial.commits if trial.state in ("pruned", "failed") else trial.commits[:-1]
            step = 0
            for commit in commits:
                self._add_decision(trial, step, commit.step, commit.value)
                step = commit.step

    @property
    def state(self) -> StudyState:
        """The state of the study; it includes its trials' progress."""
        return self.ledger.live

    def search(self, arm: str) -> ArmSearch:
        """An arm's search, rebuilt from the ledger when it is first needed."""
        if arm not in self._searches:
            facts = self.state.facts.get(arm)
            self._searches[arm] = ArmSearch(
                self.spec, arm, self.spec.concurrency, facts.task if facts is not None else ""
            )
            self._searches[arm].replay(self.state.search_trials(arm), self._decided)
        return self._searches[arm]

    def config_of(self, trial: TrialState) -> TrialConfig:
        """A trial's settings."""
        seeds, confirming = tuple(trial.seeds), trial.id.confirming
        return trial_config(self.spec, trial.id.arm, trial.params, seeds=seeds, confirming=confirming)

    def importances(self) -> dict[str, dict[str, float]]:
        """For each arm the importance of each searched field."""
        return {arm: self.search(arm).importances(self._search_trials(arm)) for arm in self.spec.arms}

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        if any(self._wants(name) for name in self._open):
            return False
        if self._only is not None:
            return True
        missing = any(self._missing(arm) > 0 and not self.search(arm).exhausted for arm in self.spec.arms)
        return self._out_of_time() or not (missing or any(self._unconfirmed(arm) for arm in self.spec.arms))

    def next(self) -> TrialState | None:
        """The next trial for a worker; None if there is none now."""
        if self.stop.made():
            return None
        name = self._waiting() or self._propose()
        if name is None:
            return None
        self._live.add(name)
        trial = self.state.trials[name]
        if not trial.id.confirming:
            self.search(trial.id.arm)  # rebuilt before anything new is recorded: a pruner must see each value once
        return trial

    def receive(self, message: Message) -> bool:
        """Handle a worker's message.

        Returns:
            Whether its trial continues.

        Raises:
            SetupError: The storage refused the worker (for example a full disk): the study can't continue now.
        """
        trial = self.state.trials[message.trial]
        if message.event == "refused" and message.trial in self._live:  # possibly before its attempt had a number
            raise SetupError(message.cause)
        if trial.ended or message.attempt < trial.attempt or message.trial not in self._live:
            return False  # Tune repeats the last message of a stopped trial
        match message.event:
            case "begun":
                if message.attempt > trial.attempt:
                    self._begin(trial, message)
            case "commit":
                assert message.commit is not None
                self._commit(message.commit)
            case "failed":
                self._fail(trial, message.cause)
            case "stopped":
                self.stop.make()  # the worker may notice a request before its driver does
                self._suspend(trial)
            case _ if not trial.alone:
                self._suspend(trial, out_of_memory=True)
            case _:
                self._fail(trial, f"out of device memory, though alone on the device: {message.cause}")
        return message.trial in self._live and not self.stop.made()

    def lost(self, name: str, cause: str) -> None:
        """Fail a trial whose worker was lost too often."""
        trial = self.state.trials[name]
        if not trial.ended:
            self._fail(trial, cause)

    def close(self) -> None:
        """Mark running trials as stopped: they resume at the next start."""
        for trial in self._trials():
            if trial.state == "running":
                self._suspend(trial)

    def _append(self, event: Proposed | Began | Committed | Ended | Stopped) -> None:
        self.ledger.append(event)
        self._keep(self.state.trials[event.trial])
        for observe in self._observers:
            observe(event)

    def _trials(self) -> list[TrialState]:
        return list(self.state.trials.values())

    def _keep(self, trial: TrialState) -> None:
        """Index a trial's current state: by ordinal within its arm, and among the open trials in the order of proposal."""
        name = str(trial.id)
        if not trial.id.confirming:
            self._searched[trial.id.arm][name] = trial
        if trial.ended:
            self._open.pop(name, None)
        else:
            self._open[name] = None

    def _wants(self, name: str) -> bool:
        return self._only is None or name in self._only

    def _search_trials(self, arm: str) -> list[TrialState]:
        return list(self._searched[arm].values())

    def _missing(self, arm: str) -> int:
        return self._planned[arm] - len(self._searched[arm])

    def _out_of_time(self) -> bool:
        limit = self.spec.budget.study_seconds
        return limit is not None and time.monotonic() - self._started > limit

    def _waiting(self) -> str | None:
        """A trial without a worker that was proposed before."""
        return next((name for name in self._open if self._wants(name) and name not in self._live), None)

    def _propose(self) -> str | None:
        """A new trial: a search trial, arm by arm in turn; then confirming trials of each arm."""
        if self._only is not None or self._out_of_time():
            return None
        for arm in sorted(self.spec.arms, key=lambda name: len(self._searched[name])):
            trials = self._search_trials(arm)
            if self._missing(arm) > 0 and self.search(arm).may_propose(len(trials), trials):
                params = self.search(arm).propose(len(trials), trials, self._decided)
                if params is None:
                    self._planned[arm] = len(trials)
                    continue
                seeds = [seed_of(self.spec.seed, "search", replicate) for replicate in range(self.spec.replicates)]
                filtered = [
                    {"filter": one.filter, "params": dict(one.params)}
                    | ({} if one.same_as is None else {"same_as": f"{arm}/{one.same_as}"})
                    for one in self.search(arm).filtered
                ]
                return self._record_proposal(f"{arm}/{len(trials)}", params, seeds, filtered)
        for arm in self.spec.arms:
            seeds = self._unconfirmed(arm)
            best = self.state.best(arm, self.spec.search.goal)
            if seeds and best is not None:
                params = {**best.params, **self._learned_by(best)}
                return self._record_proposal(f"{arm}/c{self._confirmations(arm)}", params, seeds[:1])
        return None

    def _learned_by(self, best: TrialState) -> dict[str, str]:
        """The setting by which a confirming trial starts from its winner's learned loss, if it is to and there is one."""
        facts = self.state.facts.get(best.id.arm)
        if self.spec.confirm.relearn or facts is None or not facts.learns:
            return {}
        uses = method_of(self.config_of(best).learner).uses
        return {"loss.from": f"{self.spec.name}/{best.id}"} if "loss" in uses else {}

    def _record_proposal(
        self, name: str, params: Mapping[str, Any], seeds: list[int], filtered: Sequence[dict[str, Any]] = ()
    ) -> str:
        self._append(Proposed(trial=name, params=dict(params), seeds=seeds, filtered=list(filtered)))
        return name

    def _unconfirmed(self, arm: str) -> list[int]:
        """Seeds on which the winner of an arm whose search is complete has not started."""
        if any(name in self._searched[arm] for name in self._open):
            return []
        if self.state.best(arm, self.spec.search.goal) is None:
            return []
        begun = {seed for trial in self.state.confirming_trials(arm, self.spec.search.goal) for seed in trial.seeds}
        seeds = [seed_of(self.spec.seed, "confirm", index) for index in range(self.spec.confirm.seeds)]
        return [seed for seed in seeds if seed not in begun]

    def _confirmations(self, arm: str) -> int:
        return sum(trial.id.arm == arm and trial.id.confirming for trial in self._trials())

    def _begin(self, trial: TrialState, message: Message) -> None:
        dropped = [item.commit for item in trial.commits if item.commit not in message.chain]
        self._append(Began(trial=message.trial, attempt=message.attempt, dropped=dropped))
        kept = self.state.trials[message.trial].step
        self._decided[message.trial] = [item for item in self._decided.get(message.trial, []) if item[0] <= kept]

    def _commit(self, commit: Commit) -> None:
        trial = self.state.trials[commit.trial]
        recorded = [item.commit for item in trial.commits]
        value, steps = self._value(commit), [0, *(item.step for item in trial.commits)]
        before = steps[-1]
        if commit.key in recorded:
            before = steps[-2]
        else:
            values = {name: sum(found) / len(found) for name, found in commit.report.items()}
            self._append(
                Committed(
                    trial=commit.trial,
                    attempt=trial.attempt,
                    commit=commit.key,
                    step=commit.step,
                    value=value,
                    values=values,
                )
            )
        if commit.outcome is not None:
            self._end(trial, commit.outcome, commit.step, value, commit.report)
        elif self._add_decision(trial, before, commit.step, value) and self._prunes(trial, commit.step, value):
            self._end(trial, "pruned", commit.step, value, commit.report)

    def _value(self, commit: Commit) -> float | None:
        found = commit.report.get(self.spec.search.metric)
        return sum(found) / len(found) if found else None

    def _add_decision(self, trial: TrialState, before: int, step: int, value: float | None) -> bool:
        """Add a value at a decision step; whether there is something to decide."""
        if trial.id.confirming or value is None or not math.isfinite(value):
            return False
        known = self._decided.setdefault(str(trial.id), [])
        due = self._pruner.decides(before, step)
        if not due or (known and known[-1][0] >= step):
            return False
        known.append((step, value))
        return True

    def _prunes(self, trial: TrialState, step: int, value: float | None) -> bool:
        assert value is not None
        name, arm = str(trial.id), trial.id.arm
        before = {**self._decided, name: self._decided[name][:-1]}
        return self.search(arm).should_prune(trial.id.ordinal, step, value, self._search_trials(arm), before)

    def _suspend(self, trial: TrialState, *, out_of_memory: bool = False) -> None:
        self._live.discard(str(trial.id))
        self._append(Stopped(trial=str(trial.id), out_of_memory=out_of_memory))

    def _fail(self, trial: TrialState, cause: str) -> None:
        self._end(trial, "failed", trial.step, None, {}, cause)

    def _end(
        self,
        trial: TrialState,
        state: Any,
        step: int,
        value: float | None,
        metrics: dict[str, list[float]],
        cause: str | None = None,
    ) -> None:
        finite = value if value is not None and math.isfinite(value) else None
        name = str(trial.id)
        self._append(Ended(trial=name, state=state, step=step, value=finite, metrics=metrics, cause=cause))
        self._live.discard(name)
        if not trial.id.confirming and trial.id.arm in self._searches:
            self._searches[trial.id.arm].end(trial.id.ordinal, state, finite)
