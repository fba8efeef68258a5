"""The conductor of a study: which trial comes next, what a commit means, when a trial ends. Every word goes through the ledger."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from olfl_ray.ledger import Began, Commit, Committed, Ended, Event, Ledger, Proposed, Stopped, TrialState
from olfl_ray.spec import StudySpec, TrialConfig, seed_of, trial_config
from olfl_ray.sweep.arm import ArmSearch, decision_steps

__all__ = ["Conductor", "winner"]

Observer = Callable[[Event], None]


def winner(spec: StudySpec, arm: str, trials: list[TrialState]) -> TrialState | None:
    """The best finished search trial of an arm; ties go to the earlier one."""
    done = [trial for trial in trials if trial.state == "finished" and trial.id.arm == arm and not trial.id.confirming]
    sign = 1 if spec.search.goal == "minimize" else -1
    ranked = [(sign * trial.value, trial.id.ordinal, trial) for trial in done if trial.value is not None]
    return min(ranked, key=lambda item: item[:2])[2] if ranked else None


class Conductor:
    """Decides; it neither trains nor talks to Ray.

    Args:
        spec: The study.
        ledger: Its ledger, already held by this driver.
        observers: Called with each event after it is durable.
    """

    def __init__(self, spec: StudySpec, ledger: Ledger, observers: tuple[Observer, ...] = ()) -> None:
        self.spec, self.ledger, self._observers = spec, ledger, observers
        self._live: set[str] = set()
        self._decided: dict[str, list[tuple[int, float]]] = {}
        self._started = time.monotonic()
        self.closing = False
        self.arms = {arm: ArmSearch(spec, arm, spec.concurrency) for arm in spec.arms}
        for trial in self._trials():
            step = 0
            for commit in trial.commits:
                self._note_decision(str(trial.id), step, commit.step, commit.value)
                step = commit.step
        for arm, search in self.arms.items():
            search.replay(self._search_trials(arm), self._decided)

    def _append(self, event: Event) -> None:
        self.ledger.append(event)
        for observe in self._observers:
            observe(event)

    def _trials(self) -> list[TrialState]:
        return list(self.ledger.state.trials.values())

    def _search_trials(self, arm: str) -> list[TrialState]:
        return [trial for trial in self._trials() if trial.id.arm == arm and not trial.id.confirming]

    def config_of(self, trial: TrialState) -> TrialConfig:
        """A trial's settings."""
        return trial_config(
            self.spec, trial.id.arm, trial.params, seeds=tuple(trial.seeds), confirming=trial.id.confirming
        )

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return not self._live and self._next(peek=True) is None and not self._waiting()

    def _waiting(self) -> bool:
        return any(not trial.ended for trial in self._trials()) or any(
            self._missing(arm) > 0 for arm in self.spec.arms if not self._out_of_time()
        )

    def _missing(self, arm: str) -> int:
        return self.spec.arms[arm].trials - len(self._search_trials(arm))

    def _out_of_time(self) -> bool:
        limit = self.spec.budget.study_seconds
        return limit is not None and time.monotonic() - self._started > limit

    def next(self) -> TrialState | None:
        """The next trial to give to a worker; None where there is none now."""
        if self.closing:
            return None
        found = self._next(peek=False)
        if found is not None:
            self._live.add(found)
            return self.ledger.state.trials[found]
        return None

    def _next(self, *, peek: bool) -> str | None:
        for trial in self._trials():
            if not trial.ended and str(trial.id) not in self._live:
                return str(trial.id)
        if self._out_of_time():
            return None
        for arm in sorted(self.spec.arms, key=lambda name: len(self._search_trials(name))):
            trials = self._search_trials(arm)
            ordinal = len(trials)
            if self._missing(arm) > 0 and self.arms[arm].may_propose(ordinal, trials):
                if peek:
                    return f"{arm}/{ordinal}"
                return self._propose_search(arm, ordinal, trials)
        for arm in self.spec.arms:
            if self._missing(arm) > 0 or not all(trial.ended for trial in self._search_trials(arm)):
                continue
            best = winner(self.spec, arm, self._trials())
            if best is None:
                continue
            for index in range(self.spec.confirm.seeds):
                name = f"{arm}/c{index}"
                if name not in self.ledger.state.trials:
                    if not peek:
                        seeds = [seed_of(self.spec.seed, "confirm", index)]
                        self._append(Proposed(trial=name, params=dict(best.params), seeds=seeds))
                    return name
        return None

    def _propose_search(self, arm: str, ordinal: int, trials: list[TrialState]) -> str:
        params = self.arms[arm].propose(ordinal, trials, self._decided)
        seeds = [seed_of(self.spec.seed, "search", replicate) for replicate in range(self.spec.replicates)]
        name = f"{arm}/{ordinal}"
        self._append(Proposed(trial=name, params=params, seeds=seeds))
        return name

    def commit(self, commit: Commit) -> bool:
        """Take a worker's commit.

        Returns:
            Whether the trial goes on.
        """
        trial = self.ledger.state.trials[commit.trial]
        if trial.ended:
            return False
        if trial.state != "running" or trial.attempt < commit.attempt:
            self._append(Began(trial=commit.trial, attempt=max(commit.attempt, trial.attempt + 1)))
        before = self.ledger.state.trials[commit.trial]
        means = {name: sum(values) / len(values) for name, values in commit.report.items()}
        value = means.get(self.spec.search.metric)
        seen = {item.commit for item in before.commits}
        if commit.key not in seen and commit.outcome != "failed":
            self._append(
                Committed(
                    trial=commit.trial,
                    attempt=commit.attempt,
                    commit=commit.key,
                    step=commit.step,
                    value=value,
                    values=means,
                )
            )
        if commit.outcome is not None:
            self._end(commit, commit.outcome, value)
            return False
        decides = self._note_decision(commit.trial, before.step, commit.step, value)
        if decides and value is not None and not trial.id.confirming:
            trials = self._search_trials(trial.id.arm)
            if self.arms[trial.id.arm].should_prune(
                trial.id.ordinal, commit.step, value, trials, _without_last(self._decided, commit.trial)
            ):
                self._end(commit, "pruned", value)
                return False
        return True

    def _note_decision(self, trial: str, before: int, step: int, value: float | None) -> bool:
        """Keep a value at a decision step."""
        steps = self.config_of(self.ledger.state.trials[trial]).learner.steps
        due = any(before < decide <= step for decide in decision_steps(self.spec, steps))
        if due and value is not None and math.isfinite(value):
            self._decided.setdefault(trial, []).append((step, value))
        return due

    def _end(self, commit: Commit, state: Any, value: float | None) -> None:
        trial = self.ledger.state.trials[commit.trial]
        finite = value if value is not None and math.isfinite(value) else None
        self._append(
            Ended(
                trial=commit.trial,
                state=state,
                step=commit.step,
                value=finite,
                metrics=commit.report,
                cause=commit.cause,
            )
        )
        self._live.discard(commit.trial)
        if not trial.id.confirming:
            self.arms[trial.id.arm].end(trial.id.ordinal, state, finite)

    def lost(self, name: str, cause: str) -> None:
        """A worker died more often than it may: the trial failed."""
        trial = self.ledger.state.trials[name]
        if not trial.ended:
            self._append(Ended(trial=name, state="failed", step=trial.step, value=None, metrics={}, cause=cause))
            self._live.discard(name)
            if not trial.id.confirming:
                self.arms[trial.id.arm].end(trial.id.ordinal, "failed", None)

    def close(self) -> None:
        """Mark what did not end as stopped: it goes on at the next start."""
        for trial in self._trials():
            if trial.state == "running":
                self._append(Stopped(trial=str(trial.id)))


def _without_last(decided: dict[str, list[tuple[int, float]]], trial: str) -> dict[str, list[tuple[int, float]]]:
    return {**decided, trial: decided.get(trial, [])[:-1]}
