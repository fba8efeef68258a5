"""Run a study: the same operation starts it, resumes it, and finds that nothing is left to do."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray import data
from olfl_ray.analysis import ArmResult, final_table
from olfl_ray.driver.assign import Assigner
from olfl_ray.driver.check import check_data, check_facts, check_same, check_trials
from olfl_ray.driver.datasets import DATASETS, dataset_notes
from olfl_ray.driver.home import Home
from olfl_ray.driver.live import LiveReport
from olfl_ray.driver.locations import check_location, resolved
from olfl_ray.driver.look import RUNS, report_of, report_or_warning, storage_of
from olfl_ray.driver.model import model_of
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
    TrialState,
    latest_attempt,
)
from olfl_ray.machine import machine
from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Lease, Storage
from olfl_ray.sweep import Conductor
from olfl_ray.tracking import (
    Sink,
    TrackedArm,
    TrackedStudy,
    Tracker,
    check_same_place,
    explained,
    parent_status,
    trackers_of,
)

if TYPE_CHECKING:
    from olfl_ray.trial import TrainedModel

__all__ = ["StudyResult", "Watcher", "drive", "tracked_arms", "tried_again"]

Watcher = Callable[[Event, StudyState], None]
"""Called with each event of a study's ledger, and the state after it."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Args:
        spec: The study as it was run.
        state: Its trials; `state.failures` has those that failed, by cause.
        arms: Each arm's outcome.
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
    arms: list[ArmResult]
    report: Path
    tracking: tuple[str, ...]
    undelivered: int = 0
    problem: str = ""
    finished: bool = True
    stopped: bool = False
    nothing_to_do: bool = False

    def __repr__(self) -> str:
        ended = sum(trial.ended for trial in self.state.trials.values())
        failed = sum(map(len, self.state.failures.values()))
        end = "finished" if self.finished else "stopped" if self.stopped else "unfinished"
        return f"StudyResult({self.spec.name!r}, {end}, {ended} trials ended, {failed} failed, report={str(self.report)!r})"


def tried_again(state: StudyState) -> tuple[list[str], list[str]]:
    """The trials that failed, and those that failed and were reopened by a driver that did not bring them to an end."""
    failed = [name for name, trial in state.trials.items() if trial.state == "failed"]
    return failed, [name for name, trial in state.trials.items() if trial.retried]


def drive(
    spec: StudySpec,
    home: Home,
    ledger: Ledger | None = None,
    *,
    watch: Watcher | None = None,
    retried: Sequence[str] = (),
    from_scratch: bool = False,
    only: Sequence[str] | None = None,
) -> StudyResult:
    """Run what a study lacks: start it, resume it, or find that nothing is left to do.

    Args:
        spec: The study. Where it was begun before, what affects results must be as it was.
        home: The home folder.
        ledger: Its ledger, where it is loaded already.
        watch: Called with each event of the ledger from this driver's start, and the state after it.
        retried: Failed trials that are tried again.
        from_scratch: Try them from the beginning, not from their last commits.
        only: Trials to run and no others; None: all that the study lacks.

    Raises:
        UserError: The spec, this machine or another driver does not allow it; nothing was started.
    """
    data.forget()
    written, spec = spec, resolved(complete(spec))
    check_location(spec, home)
    storage = storage_of(spec, home)
    study = TrackedStudy(spec=spec, storage=storage, home=home.path)
    trackers = trackers_of(study)
    if ledger is None and storage.keys("ledger/"):
        ledger = Ledger.load(storage)
    if ledger is not None:
        check_same(spec, ledger.state.spec, ledger.state.digest)
        check_same_place(written, ledger.state.spec)
        if not retried and _is_finished(spec, ledger, storage):
            missing, problem = _undelivered(trackers, ledger.state)
            if problem or not missing:
                result = _result(spec, home, storage, ledger.state, trackers)
                return replace(result, nothing_to_do=True, undelivered=missing, problem=problem)
    facts = check_trials(spec, home)
    notes = dataset_notes(spec, home)

    def model(trial: TrialState) -> TrainedModel:
        fixed = not any(field.startswith("task.dataset") for field in trial.params)
        digest = facts[trial.id.arm].data if fixed else ""
        source = f"{spec.name}/{trial.id}"
        return model_of(study.config(trial), str(trial.id), source, storage=storage, home=home, data=digest)

    trackers = trackers_of(replace(study, git_commit=_git_commit(), datasets=notes, model=model))
    if ledger is not None:
        check_facts(facts, ledger.state)
    else:
        check_data(spec)
        for tracker in trackers:
            with explained(tracker.name):
                tracker.prepare()
        ledger = Ledger.create(
            storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, _versions()
        )
    home.point_to(spec.name, storage)
    holder = f"olfl on {socket.gethostname()}"
    ledger.catch_up()
    with Lease.acquire(storage, holder, above=ledger.live.epoch) as lease:
        ledger.catch_up()  # from here on nobody else writes
        sinks = [Sink(tracker, ledger.live.identity, lambda: lease.lost) for tracker in trackers]

        live = LiveReport(lambda state: report_of(spec, state, storage, home))

        def observe(event: Event) -> None:
            for sink in sinks:
                sink.observe(event, ledger.live)
            if watch is not None:
                watch(event, ledger.state)
            live.observe(event, lambda: ledger.state)

        try:
            storage.write(DATASETS, json.dumps(notes).encode())
            started = _take_over(spec, ledger, storage, lease.epoch, facts, retried, from_scratch)
            for sink in sinks:
                sink.start(ledger.state)
            if watch is not None:
                watch(started, ledger.state)
            done, stopped = _drive(spec, home, storage, ledger, observe, only)
            live.close()
            for sink in sinks:
                sink.drain()
            links = {name: link for sink in sinks for name, link in sink.links().items()}
            storage.write(RUNS, json.dumps(links).encode())
            page = report_or_warning(spec, ledger.state, storage, home)
            status = parent_status(ledger.state) if done else "KILLED"
            files = {"report": page.parent} if page.exists() else {}
            arms = tracked_arms(final_table(spec, ledger.state), ledger.state)
            missing = sum(sink.close(files, status=status, arms=arms) for sink in sinks)
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
    started = DriverStarted(
        epoch=epoch,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine(gpus=spec.resources.gpu > 0),
        versions=_versions(),
    )
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
    """A study's current state; its report is written if there is none yet, or only one from before the last result."""
    page = home.report_folder(spec.name) / "index.html"
    last = max((trial.ended_at or 0.0 for trial in state.trials.values()), default=0.0)
    if not page.exists() or page.stat().st_mtime < last:
        page = report_or_warning(spec, state, storage, home)
    return StudyResult(
        spec=spec,
        state=state,
        arms=final_table(spec, state, storage),
        report=page,
        tracking=tuple(tracker.location for tracker in trackers),
    )


def tracked_arms(results: Sequence[ArmResult], state: StudyState) -> list[TrackedArm]:
    """Each arm's outcome for the trackers; what is not known is left out."""
    found = []
    for result in results:
        test, difference = result.test, result.test.difference
        values: dict[str, float | None] = {
            f"selection_{test.metric}": result.selection_value,
            f"test_{test.metric}": test.mean,
            f"test_{test.metric}_sd": test.sd,
            "n": test.n,
        }
        if difference is not None:
            values |= {"difference": difference.mean, "p": difference.p}
            values |= {"difference_low": difference.low, "difference_high": difference.high}
        known = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        ended = sum(trial.ended for trial in state.trials.values() if trial.id.arm == result.arm)
        found.append(
            TrackedArm(arm=result.arm, ended=ended, best=result.best, settings=result.best_params, metrics=known)
        )
    return found


def _versions() -> dict[str, str]:
    names = ("olfl_ray", "torch", "ray", "optuna", "mlflow", "pyarrow", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
