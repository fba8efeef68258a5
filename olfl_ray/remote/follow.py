"""Follow a study on a cluster: its events, its driver's output, its state; and request its driver to stop."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis import final_table
from olfl_ray.driver.home import Home
from olfl_ray.driver.look import STARTED, best_of, load, report_or_warning, spec_in, status_of, stop_driver, trials_of
from olfl_ray.driver.run import StudyResult
from olfl_ray.errors import StudyError, UserError
from olfl_ray.ledger import DriverStarted, Event, Ledger, StopRequest, StudyState
from olfl_ray.remote.clusters import RayCluster, locate
from olfl_ray.remote.submit import last_words
from olfl_ray.spec import without_secrets
from olfl_ray.storage import Lease, LocalStorage, Storage, open_storage

if TYPE_CHECKING:
    from olfl_ray.remote.jobs import Attempt

__all__ = ["Standing", "came_to_its_end", "counted", "follow", "list_on", "logs", "outcome", "stop_on"]

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One study of a cluster.

    Args:
        name: The study.
        attempts: Number of drivers that were submitted.
        state: running, finished, stopped or interrupted, as `Study.status`; on a cluster also failed, as its newest job;
            unreadable: `problem` says why.
        ended: Number of trials that have ended; None if this machine can't access them.
        trials: Number of trials that it will have once it is complete.
        problem: The last message of a failed driver.
        digest: Digest of what affects the study's results; empty if this machine can't access it.
        metric: The metric that decides; empty if this machine can't access it.
        best: Its best search trial of all arms; None before one has finished.
        value: That trial's metric.
        created: When the study was created, in seconds since 1970; None if this machine can't access it.
        changed: When its last event was recorded; None likewise.
    """

    name: str
    attempts: int
    state: str
    ended: int | None
    trials: int
    problem: str = ""
    digest: str = ""
    metric: str = ""
    best: str | None = None
    value: float | None = None
    created: float | None = None
    changed: float | None = None


def follow(attempt: Attempt, *, cluster: RayCluster, home: Home) -> Iterator[tuple[Event, StudyState]]:
    """The events of a study from the start of its newest driver, each with the state after it, until the attempt ends.

    Args:
        attempt: The driver's job.
        cluster: The cluster.
        home: The home folder; `locate` the study first.
    """
    _, ledger, storage = load(attempt.study, home)
    starts = [number for number, event in enumerate(ledger.events, start=1) if isinstance(event, DriverStarted)]
    ledger = Ledger.load(storage, upto=starts[-1] if starts else None)
    yield ledger.events[-1], ledger.state
    while True:
        live = cluster.server.look(attempt).live
        for event in ledger.news():
            yield event, ledger.state
        if not live:
            return
        time.sleep(POLL_SECONDS)


def outcome(attempt: Attempt, *, cluster: RayCluster, home: Home) -> StudyResult:
    """A study's result after an attempt that has ended, with its report written again.

    Args:
        cluster: The cluster.
        cluster: Where.
        home: The home folder; `locate` the study first.
    """
    spec, ledger, storage = load(attempt.study, home)
    return StudyResult(
        spec=spec,
        state=ledger.state,
        arms=final_table(spec, ledger.state, storage),
        report=report_or_warning(spec, ledger.state, storage, home),
        tracking=tuple(without_secrets(str(own.options["uri"])) for own in spec.tracking if own.options.get("uri")),
        finished=attempt.state != "stopped",
        stopped=attempt.state == "stopped",
        nothing_to_do=attempt.state == "finished" and STARTED not in cluster.server.logs(attempt),
    )


def came_to_its_end(attempt: Attempt, *, home: Home) -> bool:
    """Whether a driver that exited with code 1 completed its work: trials failed, or runs are missing in MLflow.

    Args:
        attempt: The driver's job, which has ended.
        home: The home folder; `locate` the study first.
    """
    return attempt.exit_code == 1 and not load(attempt.study, home)[1].state.driving


def logs(name: str, *, cluster: RayCluster, attempt: int | None = None, follow: bool = False) -> Iterator[str]:
    """What a study's driver printed on the cluster, piece by piece.

    Args:
        name: The study.
        cluster: The cluster.
        attempt: Number of the attempt; None: the newest.
        follow: Continue until the driver exits.

    Raises:
        StudyError: There is no such attempt.
    """
    newest = cluster.newest(name)
    found = newest
    if attempt is not None:
        numbered = {other.number: other for other in cluster.server.attempts(name)}
        if attempt not in numbered:
            there = ", ".join(map(str, numbered))
            raise StudyError(f"--attempt: study {name!r} has no attempt {attempt} on the cluster; there are: {there}")
        found = numbered[attempt]
    return cluster.server.tail(found) if follow else iter([cluster.server.logs(found)])


def stop_on(name: str, *, cluster: RayCluster, home: Home, storage: str | None = None, patience: float = 600.0) -> None:
    """Request a study's driver on a cluster to commit and stop, and wait until it has: through the study's storage if this
    machine can access it and a driver holds it, else by the job server's SIGTERM.
    Args:
        name: The study.
        cluster: The cluster.
        home: The home folder, which need not know the study.
        storage: As for `locate`.
        patience: Seconds to wait.

    Raises:
        StudyError: No driver runs it, or it did not stop in time.
    """
    attempt = cluster.server.newest(name)
    if attempt is None:  # a driver that was not started as a job of this cluster
        locate(name, home=home, cluster=cluster, storage=storage)
        home.refuse_untrusted(name)
        _, begun, place = load(name, home)
        stop_driver(begun, place, patience=patience)
        return
    if not attempt.live:
        raise StudyError(
            f"study {name!r} is not running on {cluster.name} (attempt {attempt.number}: {attempt.state}); "
            f"`olfl sweep resume {name} --address {shlex.quote(cluster.name)}` resumes it"
        )
    ledger = _ask_to_stop(name, cluster, home, storage)
    if ledger is None:
        cluster.server.stop(attempt)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if not cluster.server.look(attempt).live:
            return
        for event in ledger.news() if ledger is not None else ():
            if isinstance(event, DriverStarted):  # a new driver, to which the request does not apply
                StopRequest(home.storage(name), event.epoch).make()
        time.sleep(POLL_SECONDS)
    raise StudyError(
        f"study {name!r} was requested to stop, but its driver still runs after {patience:g} s; keep waiting, "
        f"or stop job {attempt.id}"
    )


def list_on(cluster: RayCluster | None, storage: str | None = None) -> Iterator[Standing]:
    """The state of each study of a cluster: those of its jobs, then others in its storage.

    Args:
        cluster: The cluster; None: only the storage is read.
        storage: The storage, such as s3://bucket/studies; None: the target's.

    Raises:
        UserError: The storage is not a folder, or can't be read.
    """
    given = None if storage is None else open_storage(storage)
    if isinstance(given, LocalStorage) and not given.root.is_dir():
        raise StudyError(f"`storage=`: {given.root} is not a folder; name the folder that holds the studies")
    attempts = [] if cluster is None else cluster.server.attempts()
    known = list(dict.fromkeys(attempt.study for attempt in attempts))
    for name in known:
        own = [attempt for attempt in attempts if attempt.study == name]
        assert cluster is not None
        yield _standing(own, cluster)
    root = storage or (None if cluster is None else cluster.target.storage.url)
    for name in [] if root is None else open_storage(root).folders():
        place = open_storage(f"{str(root).rstrip('/')}/{name}")
        if name not in known and (ledger := _ledger(place)) is not None:
            state = status_of(ledger, place)
            yield Standing(name=name, attempts=ledger.live.epoch, state=state, **counted(ledger))


def _standing(attempts: Sequence[Attempt], cluster: RayCluster) -> Standing:
    """The state of a study from its attempts on the cluster."""
    newest = attempts[-1]
    ledger = None
    if cluster.sees(newest):
        ledger = _ledger(open_storage(f"{newest.storage.rstrip('/')}/{newest.study}"))
    return Standing(
        name=newest.study,
        attempts=len(attempts),
        state=newest.state,
        problem=last_words(newest, cluster) if newest.state == "failed" else "",
        **counted(ledger),
    )


def counted(ledger: Ledger | None) -> dict[str, Any]:
    """The fields of a `Standing` that a study's ledger tells; None: this machine can't access it."""
    if ledger is None:
        return {"ended": None, "trials": 0}
    state = ledger.live
    spec = spec_in(state.spec, state.name)
    best = best_of(spec, state)
    return {
        "ended": sum(trial.ended for trial in state.trials.values()),
        "trials": trials_of(state, spec),
        "digest": state.digest,
        "metric": spec.search.metric,
        "best": None if best is None else str(best.id),
        "value": None if best is None else best.value,
        "created": state.created_at,
        "changed": ledger.events[-1].time,
    }


def _ledger(place: Storage) -> Ledger | None:
    """The ledger of the study in a storage; None if there is none that can be read."""
    try:
        return Ledger.load(place) if place.keys("ledger/") else None
    except UserError:
        return None


def _ask_to_stop(name: str, cluster: RayCluster, home: Home, storage: str | None) -> Ledger | None:
    """Request a stop through the storage; returns the study's ledger, or None if nobody would react: the study has not started,
    its driver has ended, or this machine can't access it.
    """
    try:
        place = locate(name, home=home, cluster=cluster, storage=storage)
        ledger = Ledger.load(place)
        if not (ledger.state.driving and Lease.is_held(place)):
            return None
        StopRequest(place, ledger.state.epoch).make()
    except UserError:
        return None
    return ledger
