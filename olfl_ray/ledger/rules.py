"""The ledger's rules: from a state and an event to the next state, or a `LedgerError` that names the rule.

planned -> running <-> stopped; from any of the three once to one of finished, pruned, diverged, failed.
Only a failed trial may be reopened: failed -> stopped.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from typing import assert_never, get_args

from olfl_ray.errors import LedgerError, StudyError
from olfl_ray.ledger.events import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    EndState,
    Event,
    Examined,
    Proposed,
    Reopened,
    Revised,
    Stopped,
    StudyCreated,
)
from olfl_ray.ledger.state import StudyState, TrialId, TrialState

__all__ = ["advance", "apply"]


_IDENTITY = re.compile(r"[\w-]{0,64}", re.ASCII)


def apply(state: StudyState | None, event: Event) -> StudyState:
    """The state after an event.

    Args:
        state: The state before; None before the first event.
        event: What happened.

    Raises:
        LedgerError: The rules do not allow that event in that state.
    """
    after, trial = advance(state, event)
    return after if trial is None else replace(after, trials={**after.trials, str(trial.id): trial})


def advance(state: StudyState | None, event: Event) -> tuple[StudyState, TrialState | None]:
    """Like `apply`, but without adding the trial to the others: its cost does not grow with their number.

    Returns:
        The study with its trials unchanged, and the new state of the event's trial, if it has one.

    Raises:
        LedgerError: The rules do not allow that event in that state.
    """
    if isinstance(event, StudyCreated):
        _require(state is None, "a study is created once", event)
        # It becomes a folder's name and a part of queries.
        _require(
            _IDENTITY.fullmatch(event.identity) is not None, "an identity consists of letters, digits, _ and -", event
        )
        created = StudyState(
            name=event.name,
            digest=event.digest,
            spec=event.spec,
            versions=event.versions,
            created_at=event.time,
            identity=event.identity or _derived_identity(event),
        )
        return created, None
    if state is None:
        raise LedgerError(f"a study's first event creates it, but this is {event!r}")
    if isinstance(event, DriverStarted):
        _require(event.epoch > state.epoch, f"the epoch must be greater than {state.epoch}", event)
        return replace(state, epoch=event.epoch, driving=True, drivers=(*state.drivers, event)), None
    if isinstance(event, DriverStopped):
        _require(state.driving, "no driver is running", event)
        _require(event.epoch == state.epoch, f"the running driver's epoch is {state.epoch}", event)
        return replace(state, driving=False), None
    if isinstance(event, Revised):
        return replace(state, spec=event.spec, digest=event.digest or state.digest), None
    if isinstance(event, Examined):
        _require(event.arm not in state.facts, "an arm is examined once", event)
        return replace(state, facts={**state.facts, event.arm: event}), None
    if isinstance(event, Proposed):
        return state, _propose(state, event)
    if isinstance(event, Reopened):
        return state, _reopen(_proposed(state, event), event)
    if isinstance(event, (Began, Committed, Ended, Stopped)):
        before = _proposed(state, event)
        _require(not before.ended, f"the trial is {before.state} already", event)
        return state, _apply_to_trial(before, event)
    raise LedgerError(f"no rule for {event!r}")


def _derived_identity(event: StudyCreated) -> str:
    """The identity of a study whose ledger has none: the time of its first event makes it unique."""
    return sha256(json.dumps(event.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def _proposed(state: StudyState, event: Began | Committed | Ended | Stopped | Reopened) -> TrialState:
    _require(event.trial in state.trials, "the trial was never proposed", event)
    return state.trials[event.trial]


def _reopen(trial: TrialState, event: Reopened) -> TrialState:
    _require(trial.state == "failed", f"only a failed trial is reopened, this one is {trial.state}", event)
    _require(event.scratch >= 0, "the discarded attempt is a number from 0", event)
    kept = trial.commits if event.scratch == 0 else ()
    return replace(
        _after(trial, kept),
        state="stopped",
        scratch=max(event.scratch, trial.scratch),
        metrics={},
        cause=None,
        ended_at=None,
        retried=True,
    )


def _after(trial: TrialState, commits: tuple[Committed, ...]) -> TrialState:
    """The trial's state after exactly these commits."""
    last = commits[-1] if commits else None
    return replace(
        trial, commits=commits, step=0 if last is None else last.step, value=None if last is None else last.value
    )


def _propose(state: StudyState, event: Proposed) -> TrialState:
    try:
        trial = TrialId.parse(event.trial)
    except StudyError as error:
        raise LedgerError(f"{error}, in {event!r}") from error
    _require(event.trial not in state.trials, "the trial was proposed before", event)
    _require(len(event.seeds) > 0, "a trial has at least one seed", event)
    return TrialState(
        id=trial, params=event.params, seeds=tuple(event.seeds), proposed_at=event.time, filtered=tuple(event.filtered)
    )


def _apply_to_trial(trial: TrialState, event: Began | Committed | Ended | Stopped) -> TrialState:
    match event:
        case Began():
            _require(event.attempt > trial.attempt, f"the attempt must be greater than {trial.attempt}", event)
            began = event.time if trial.began_at is None else trial.began_at
            kept = tuple(commit for commit in trial.commits if commit.commit not in event.dropped)
            redone = trial.redone or len(kept) < len(trial.commits)
            return replace(_after(trial, kept), state="running", attempt=event.attempt, began_at=began, redone=redone)
        case Committed():
            last = trial.commits[-1].step if trial.commits else 0
            _require(trial.state == "running", f"only a running trial commits, this one is {trial.state}", event)
            _require(event.attempt == trial.attempt, f"the current attempt is {trial.attempt}", event)
            _require(event.step >= last, f"the step must be at least {last}", event)
            known = any(event.commit == before.commit for before in trial.commits)
            _require(not known, "that commit was recorded before", event)
            return replace(trial, commits=(*trial.commits, event), step=event.step, value=event.value)
        case Ended():
            _require(event.state in get_args(EndState), f"a trial ends as one of {get_args(EndState)}", event)
            _require(event.state == "failed" or trial.attempt > 0, "before it has started, it can only fail", event)
            _require(event.state != "failed" or bool(event.cause), "a failed trial has a cause", event)
            return replace(
                trial,
                state=event.state,
                step=event.step,
                value=event.value,
                metrics=event.metrics,
                cause=event.cause,
                ended_at=event.time,
                retried=False,
            )
        case Stopped():
            _require(trial.state == "running", f"only a running trial stops, this one is {trial.state}", event)
            return replace(trial, state="stopped", alone=trial.alone or event.out_of_memory)
        case _:
            assert_never(event)


def _require(holds: bool, rule: str, event: Event) -> None:
    if not holds:
        raise LedgerError(f"{rule}, so this event is illegal: {event!r}")
