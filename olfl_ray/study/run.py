"""Run a study: the same operation starts it, resumes it, and finds that nothing is left to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from olfl_ray import data
from olfl_ray.analysis import ArmResult, final_table
from olfl_ray.errors import Fenced, StudyError, UserError
from olfl_ray.ledger import (
    DriverStarted,
    DriverStopped,
    Event,
    Examined,
    Ledger,
    Reopened,
    Revised,
    StopRequest,
    StudyState,
    latest_attempt,
)
from olfl_ray.spec import StudySpec, resolve_search
from olfl_ray.storage import Lease, Storage
from olfl_ray.study.assign import Assigner
from olfl_ray.study.check import check_data, check_facts, check_failed, check_same, check_trials, extended
from olfl_ray.study.datasets import DATASETS, dataset_notes
from olfl_ray.study.home import Home
from olfl_ray.study.look import load, report_of, storage_of
from olfl_ray.study.places import check_place, resolved
from olfl_ray.sweep import Conductor
from olfl_ray.tracking import (
    Sink,
    TrackedStudy,
    Tracker,
    check_same_place,
    explained,
    parent_status,
    trackers_of,
)

__all__ = ["StudyResult", "extend", "resume", "retry", "run", "tried_again"]

Watcher = Callable[[Event, StudyState], None]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Args:
        spec: The study as it was run.
        state: Its trials; `state.failures` has those that failed, by cause.
        table: One row per arm.
        report: The report's page.
        tracking: Where each tracker keeps its records, without passwords.
        undelivered: Runs that a tracker does not have yet, the study's own among them; the next start delivers them.
        problem: Why not, or why that is not known, in one line.
        finished: Whether nothing is left to do; else the next start resumes.
        stopped: Whether it was asked to stop.
        nothing_to_do: Whether it was finished before.
    """

    spec: StudySpec
    state: StudyState
    table: list[ArmResult]
    report: Path
    tracking: tuple[str, ...]
    undelivered: int = 0
    problem: str = ""
    finished: bool = True
    stopped: bool = False
    nothing_to_do: bool = False


def run(spec: StudySpec, *, home: Home, watch: Watcher | None = None) -> StudyResult:
    """Run what a study lacks.

    Args:
        spec: The study. Where it was begun before, what affects results must be as it was.
        home: The home folder.
        watch: Called with each event of the ledger from this driver's start, and the state after it.

    Raises:
        UserError: The spec, this machine or another driver does not allow it; nothing was started.
    """
    return _run(spec, home, watch)


def resume(
    name: str, *, home: Home, watch: Watcher | None = None, failed: bool = False, from_scratch: bool = False
) -> StudyResult:
    """Go on with a study by its name; the same as `run` with its spec.

    Args:
        name: The study.
        home: The home folder.
        watch: As for `run`.
        failed: Run the failed trials again, each from its last commit, and no others.
        from_scratch: Try them from the beginning.

    Raises:
        UserError: As for `run`.
    """
    spec, ledger = _found(name, home)
    if not failed:
        return _run(spec, home, watch)
    names, reopened = tried_again(ledger.state)
    return _run(spec, home, watch, names, from_scratch, only=[*names, *reopened])


def retry(
    name: str, trials: Sequence[str], *, home: Home, watch: Watcher | None = None, from_scratch: bool = False
) -> StudyResult:
    """Retry a study's failed trials, and resume it.

    Args:
        name: The study.
        trials: `ARM/ORDINAL` of each.
        home: The home folder.
        watch: As for `run`.
        from_scratch: From the beginning, not from their last commits.

    Raises:
        UserError: One of them is not there or did not fail; or as for `run`.
    """
    spec, ledger = _found(name, home)
    check_failed(trials, ledger.state)
    reopen = [trial for trial in trials if not ledger.state.trials[trial].retried]
    return _run(spec, home, watch, reopen, from_scratch)


def tried_again(state: StudyState) -> tuple[list[str], list[str]]:
    """The trials that failed, and those that failed and were reopened by a driver that did not bring them to an end."""
    failed = [name for name, trial in state.trials.items() if trial.state == "failed"]
    return failed, [name for name, trial in state.trials.items() if trial.retried]


def extend(name: str, trials: int, *, home: Home, watch: Watcher | None = None, arm: str | None = None) -> StudyResult:
    """Add trials to every arm of a study, or to one; the search keeps its history.

    Args:
        name: The study.
        trials: More search trials for each arm.
        home: The home folder.
        watch: As for `run`.
        arm: The arm that gets them; None: all.

    Raises:
        UserError: As for `run`.
    """
    spec = _found(name, home)[0]
    return _run(extended(spec, trials, arm), home, watch)


def _found(name: str, home: Home) -> tuple[StudySpec, Ledger]:
    """A study that was begun: its spec, with the storage in which it was found, and its ledger.

    Raises:
        StudyError: It is not there, or its folder has another name than the study.
    """
    home.refuse_hearsay(name)
    spec, ledger, storage = load(name, home)
    if storage.url != storage_of(spec, home).url:  # begun under another home folder, or moved
        place = spec.storage.model_copy(update={"url": storage.url.rpartition("/")[0]})
        spec = spec.model_copy(update={"storage": place})
        if storage.url != storage_of(spec, home).url:
            raise StudyError(f"study: {storage.url} holds the study {name!r}; give that folder its name, {name}")
    return spec, ledger


def _run(
    spec: StudySpec,
    home: Home,
    watch: Watcher | None,
    retried: Sequence[str] = (),
    from_scratch: bool = False,
    only: Sequence[str] | None = None,
) -> StudyResult:
    data.forget()
    written, spec = spec, resolved(resolve_search(spec))
    check_place(spec, home)
    storage = storage_of(spec, home)
    study = TrackedStudy(spec=spec, storage=storage, home=home.path)
    trackers = trackers_of(study)
    begun = bool(storage.keys("ledger/"))
    if begun:
        ledger = Ledger.load(storage)
        check_same(spec, ledger.state.spec, ledger.state.digest)
        check_same_place(written, ledger.state.spec)
        if not retried and _is_finished(spec, ledger, storage):
            missing, problem = _undelivered(trackers, ledger.state)
            if problem or not missing:
                result = _result(spec, home, storage, ledger.state, trackers)
                return replace(result, nothing_to_do=True, undelivered=missing, problem=problem)
    facts = check_trials(spec, home)
    notes = dataset_notes(spec, home)
    trackers = trackers_of(replace(study, git_commit=_git_commit(), datasets=notes))
    if begun:
        check_facts(facts, ledger.state)
    else:
        check_data(spec)
        for tracker in trackers:
            with explained(tracker.name):
                tracker.prepare()
        Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, _versions())
    home.point_to(spec.name, storage)
    holder = f"olfl on {socket.gethostname()}"
    with Lease.acquire(storage, holder, above=Ledger.load(storage).state.epoch) as lease:
        ledger = Ledger.load(storage)
        sinks = [Sink(tracker, ledger.live.identity, lambda: lease.lost) for tracker in trackers]

        def observe(event: Event) -> None:
            for sink in sinks:
                sink.observe(event, ledger.live)
            if watch is not None:
                watch(event, ledger.state)

        try:
            storage.write(DATASETS, json.dumps(notes).encode())
            started = _take_over(spec, ledger, storage, lease.epoch, facts, retried, from_scratch)
            for sink in sinks:
                sink.start(ledger.state)
            if watch is not None:
                watch(started, ledger.state)
            done, stopped = _drive(spec, home, storage, ledger, observe, only)
            page = report_of(spec, ledger.state, storage, home)
            status = parent_status(ledger.state) if done else "KILLED"
            missing = sum(sink.close({"report": page.parent}, status=status) for sink in sinks)
        except Fenced:
            raise StudyError(
                f"study {spec.name!r}: another driver took it over while this one was paused; this one has stopped"
            ) from None
        finally:
            for sink in sinks:
                sink.abandon()
    result = _result(spec, home, storage, ledger.state, trackers)
    return replace(
        result,
        undelivered=missing,
        problem="; ".join(sink.problem for sink in sinks if sink.problem),
        finished=done,
        stopped=stopped,
    )


def _take_over(
    spec: StudySpec,
    ledger: Ledger,
    storage: Storage,
    epoch: int,
    facts: Mapping[str, Examined],
    retried: Sequence[str],
    from_scratch: bool,
) -> DriverStarted:
    """What a new driver records before anything else."""
    started = DriverStarted(epoch=epoch, host=socket.gethostname(), pid=os.getpid())
    ledger.append(started)
    resolved = spec.model_dump(mode="json", by_alias=True)
    if resolved != dict(ledger.state.spec):
        ledger.append(Revised(spec=resolved, digest=spec.digest))
    for arm, found in facts.items():
        if arm not in ledger.state.facts:
            ledger.append(found)
    for name in dict.fromkeys(retried):
        scratch = latest_attempt(storage, name) if from_scratch else 0
        ledger.append(Reopened(trial=name, scratch=scratch))
    return started


def _drive(
    spec: StudySpec,
    home: Home,
    storage: Storage,
    ledger: Ledger,
    observe: Callable[[Event], None],
    only: Sequence[str] | None,
) -> tuple[bool, bool]:
    """Run the trials; whether nothing is left to do, and whether it was asked to stop."""
    from olfl_ray.sweep.cluster import on_cluster
    from olfl_ray.sweep.tuner import run_trials

    epoch = ledger.state.epoch
    stop = StopRequest(storage, epoch)
    conductor = Conductor(spec, ledger, stop, (observe,), only)
    if not conductor.finished:
        assign = Assigner(spec, home, storage, epoch, ledger.state.facts, cluster=on_cluster())
        run_trials(conductor, lambda trial: assign(trial, conductor.config_of(trial)))
    conductor.close()
    done = Conductor(spec, ledger, stop).finished
    storage.write("importances.json", json.dumps(conductor.importances()).encode())
    ledger.append(DriverStopped(epoch=epoch, reason="finished" if done else "stopped"))
    ledger.compact()
    return done, stop.made()


def _is_finished(spec: StudySpec, ledger: Ledger, storage: Storage) -> bool:
    """Whether nothing is left to do but, perhaps, to deliver."""
    finished = Conductor(spec, ledger, StopRequest(storage, ledger.state.epoch)).finished
    return finished and not ledger.state.driving


def _undelivered(trackers: Sequence[Tracker], state: StudyState) -> tuple[int, str]:
    """How many runs the trackers lack, and why that is not known, if it is not."""
    missing = 0
    for tracker in trackers:
        try:
            with explained(tracker.name):
                missing += tracker.undelivered(state)
        except UserError as error:
            return missing + len(state.trials) + 1, str(error)
    return missing, ""


def _result(
    spec: StudySpec, home: Home, storage: Storage, state: StudyState, trackers: Sequence[Tracker]
) -> StudyResult:
    """A study's current state; its report is written if there is none yet."""
    page = home.report_folder(spec.name) / "index.html"
    if not page.exists():
        page = report_of(spec, state, storage, home)
    return StudyResult(
        spec=spec,
        state=state,
        table=final_table(spec, state, storage),
        report=page,
        tracking=tuple(tracker.location for tracker in trackers),
    )


def _versions() -> dict[str, str]:
    names = ("olfl_ray", "torch", "ray", "optuna", "mlflow", "pyarrow", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
