"""The state of a study: running trials with step, age and time left, each arm's best trial, failures with causes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from olfl_ray.ledger import Began, Committed, DriverStarted, Event, Ledger, Reopened, StudyState, TrialState
from olfl_ray.search import notes
from olfl_ray.spec import StudySpec, planned, trial_config

__all__ = ["ArmOverview", "Driver", "Failure", "Overview", "TrialOverview", "overview_of"]


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The process that drives a study.

    Args:
        host: Host name.
        pid: Process id on that host.
        since: When it started.
    """

    host: str
    pid: int
    since: datetime


@dataclass(frozen=True, kw_only=True)
class ArmOverview:
    """One arm.

    Args:
        arm: The arm.
        trials: Number of trials that it will have: of the search, and those that confirm its winner.
        states: Number of trials so far by state.
        best: Its best finished search trial; None before one has finished.
        value: That trial's search metric.
    """

    arm: str
    trials: int
    states: Mapping[str, int]
    best: str | None
    value: float | None


@dataclass(frozen=True, kw_only=True)
class TrialOverview:
    """A trial that runs, or that is suspended.

    Args:
        trial: `ARM/ORDINAL`, or `ARM/cN` of a confirming trial.
        state: running or stopped.
        attempt: Number of its attempt, from 1.
        step: Base steps done at its last commit.
        steps: Number of base steps if it is not ended early.
        value: Search metric at its last commit; None before the first.
        age: Seconds since its attempt began.
        commit_age: Seconds since its attempt's last commit; None before the first.
        left: Estimated seconds until its last step; None where it does not run, or its arm has no commit yet.
    """

    trial: str
    state: str
    attempt: int
    step: int
    steps: int
    value: float | None
    age: float
    commit_age: float | None
    left: float | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials that failed for the same cause.

    Args:
        cause: The first line of the cause.
        trials: The trials.
    """

    cause: str
    trials: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Where a study stands.

    Args:
        study: Its name.
        status: running, finished, stopped or interrupted, as `Study.status`.
        metric: The metric that decides.
        goal: minimize or maximize.
        ended: Number of trials that have ended.
        trials: Number of trials of the complete study.
        created_at: When it was created.
        changed_at: When its last event was recorded.
        age: Seconds since its last event.
        left: Estimated seconds until its last trial ends; None if it is not running, or too little is known.
        digest: Digest of what affects its results.
        location: URL of its storage.
        driver: Its latest driver; None before the first.
        arms: Its arms, in the order of the spec.
        running: The trials that run or are suspended.
        failures: The failed trials by cause.
        notes: Differences between what the spec seems to ask for and what the study does.
        data: A line for each data set.
    """

    study: str
    status: str
    metric: str
    goal: str
    ended: int
    trials: int
    created_at: datetime
    changed_at: datetime
    age: float
    left: float | None
    digest: str
    location: str
    driver: Driver | None
    arms: tuple[ArmOverview, ...]
    running: tuple[TrialOverview, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    data: tuple[str, ...]


def overview_of(
    spec: StudySpec,
    ledger: Ledger,
    *,
    status: str,
    total: int,
    location: str,
    data: Iterable[str],
    now: float | None = None,
) -> Overview:
    """Where a study stands.

    Args:
        spec: The study.
        ledger: Its ledger, up to date.
        status: As `Study.status`.
        total: Number of trials of the complete study.
        location: URL of its storage.
        data: A line for each data set.
        now: The time, in seconds since 1970; None: this machine's clock.
    """
    state, events = ledger.state, ledger.events
    now = max(time.time() if now is None else now, events[-1].time)  # the driver's clock may be ahead
    paces, live = Paces(events), status == "running"
    open_trials = [trial for trial in state.trials.values() if trial.state in ("running", "stopped")]
    driver = next((event for event in reversed(events) if isinstance(event, DriverStarted)), None)
    return Overview(
        study=state.name,
        status=status,
        metric=spec.search.metric,
        goal=spec.search.goal,
        ended=sum(trial.ended for trial in state.trials.values()),
        trials=total,
        created_at=_moment(state.created_at),
        changed_at=_moment(events[-1].time),
        age=now - events[-1].time,
        left=_left(spec, state, paces, now) if live else None,
        digest=state.digest,
        location=location,
        driver=None if driver is None else Driver(host=driver.host, pid=driver.pid, since=_moment(driver.time)),
        arms=tuple(_arm(spec, state, arm) for arm in spec.arms),
        running=tuple(_trial(spec, trial, paces, now, live) for trial in open_trials),
        failures=tuple(Failure(cause=cause, trials=tuple(names)) for cause, names in state.failures.items()),
        notes=tuple(notes(spec)),
        data=tuple(data),
    )


class Paces:
    """How fast trials ran: the time between an attempt's start and its commits; pauses between attempts don't count.

    Args:
        events: The study's events.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.began: dict[str, float] = {}
        self.committed: dict[str, float] = {}
        self._sums: dict[tuple[str, bool], tuple[float, int]] = {}
        last: dict[str, tuple[float, int]] = {}
        for event in events:
            if isinstance(event, Began):
                self.began[event.trial] = event.time
                self.committed.pop(event.trial, None)
                last[event.trial] = event.time, last.get(event.trial, (0.0, 0))[1]
            elif isinstance(event, Reopened) and event.scratch:
                last[event.trial] = event.time, 0
            elif isinstance(event, Committed):
                since, step = last.get(event.trial, (event.time, 0))
                self._add(event.trial, max(0.0, event.time - since), max(0, event.step - step))
                self.committed[event.trial] = event.time
                last[event.trial] = event.time, event.step

    def of(self, arm: str, confirming: bool) -> float | None:
        """Seconds per base step of an arm's trials: of the same kind, else of any kind; None before its first commit."""
        own = [self._sums.get((arm, confirming), (0.0, 0)), self._sums.get((arm, not confirming), (0.0, 0))]
        return next((seconds / steps for seconds, steps in own if steps), None)

    def _add(self, trial: str, seconds: float, steps: int) -> None:
        arm, _, name = trial.rpartition("/")
        before = self._sums.get((arm, name.startswith("c")), (0.0, 0))
        self._sums[arm, name.startswith("c")] = before[0] + seconds, before[1] + steps


def _trial(spec: StudySpec, trial: TrialState, paces: Paces, now: float, live: bool) -> TrialOverview:
    name, steps = str(trial.id), _steps(spec, trial)
    committed = paces.committed.get(name)
    return TrialOverview(
        trial=name,
        state=trial.state,
        attempt=trial.attempt,
        step=trial.step,
        steps=steps,
        value=trial.value,
        age=now - paces.began.get(name, now),
        commit_age=None if committed is None else now - committed,
        left=_work(trial, steps, paces, now) if live and trial.state == "running" else None,
    )


def _work(trial: TrialState, steps: int, paces: Paces, now: float) -> float | None:
    """Seconds that a trial still needs once it runs."""
    pace = paces.of(trial.id.arm, trial.id.confirming)
    if pace is None:
        return None
    name = str(trial.id)
    since = paces.committed.get(name, paces.began.get(name, now)) if trial.state == "running" else now
    return max(0.0, pace * (steps - trial.step) - (now - since))


def _left(spec: StudySpec, state: StudyState, paces: Paces, now: float) -> float | None:
    """Seconds until the last trial ends: the time that all trials still need, divided by the number that run at the same time.

    A search trial that is not proposed yet is expected to end at the step at which its arm's ended ones did, on average:
    pruned trials are shorter.
    """
    works: list[float | None] = []
    for trial in state.trials.values():
        if not trial.ended:
            works.append(_work(trial, _steps(spec, trial), paces, now))
    for arm in spec.arms:
        own = state.search_trials(arm)
        ended = [trial.step for trial in own if trial.state in ("finished", "pruned", "diverged")]
        steps = sum(ended) / len(ended) if ended else _steps_of(spec, arm)
        wanted = planned(spec, arm, spec.arms[arm].trials) - len(own)
        confirming = spec.confirm.seeds - len(state.confirming_trials(arm, spec.search.goal))
        for count, length, kind in ((wanted, steps, False), (confirming, _steps_of(spec, arm), True)):
            pace = paces.of(arm, kind)
            works += [None if pace is None else pace * length] * max(0, count)
    known = [work for work in works if work is not None]
    if len(known) < len(works):
        return None
    return max([sum(known) / min(spec.concurrency, len(known)), *known]) if known else 0.0


def _steps(spec: StudySpec, trial: TrialState) -> int:
    seeds, confirming = tuple(trial.seeds), trial.id.confirming
    return trial_config(spec, trial.id.arm, trial.params, seeds=seeds, confirming=confirming).learner.steps


def _steps_of(spec: StudySpec, arm: str) -> int:
    return trial_config(spec, arm, {}, seeds=(0,)).learner.steps


def _arm(spec: StudySpec, state: StudyState, arm: str) -> ArmOverview:
    own = [trial for trial in state.trials.values() if trial.id.arm == arm]
    best = state.best(arm, spec.search.goal)
    return ArmOverview(
        arm=arm,
        trials=max(len(own), planned(spec, arm, spec.arms[arm].trials) + spec.confirm.seeds),
        states=dict(Counter(trial.state for trial in own)),
        best=None if best is None else str(best.id),
        value=None if best is None else best.value,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
