"""A driver's cost per trial as the study grows: a real ledger on disk, a real search, workers' messages written by hand.

`python -m benchmarks.sweep.growth grow|restart FOLDER TRIALS` is one such driver; it prints its measurements.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.services.servers import MlflowServer, postgres, postgres_programs
from benchmarks.sweep.contestants import METRIC, sleeping_spec
from olfl_ray.ledger import Commit, Ledger, StopRequest, TrialState
from olfl_ray.search import ArmSearch
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.storage import LocalStorage, Storage, open_storage
from olfl_ray.sweep import Conductor
from olfl_ray.worker import Message

__all__ = ["Growing", "Growth", "Restart", "measure_growth", "mlflow_seconds"]

ARM = "baseline"
TIMED = 100
"""Number of timed trials at the end of a growth, and of timed TPE proposals after a restart."""


@dataclass(frozen=True, kw_only=True)
class Growing:
    """Means over the last trials before a study reaches its size; seconds per trial.

    Args:
        conductor: All work of the conductor for it, including the two below.
        storage: Part of it for writing its events to disk.
        sampler: Part of it for Optuna with random points.
        events: Number of ledger events per trial.
        memory_bytes: Resident size of the process at that point; no Ray, no MLflow.
    """

    conductor: float
    storage: float
    sampler: float
    events: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Restart:
    """A start that resumes the study, in seconds.

    Args:
        load: Reading the ledger, compacted.
        load_events: Reading the ledger event by event, as if the compacted object were corrupt.
        replay: Replaying the trials in the search.
        tpe: Median TPE proposal afterwards.
    """

    load: float
    load_events: float
    replay: float
    tpe: float


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A study of one size.

    Args:
        trials: Number of finished trials.
        growing: Cost of its last trials.
        restart: Cost of a new driver's start.
    """

    trials: int
    growing: Growing
    restart: Restart


class _Clocked(LocalStorage):
    """Storage on disk that adds up its time."""

    spent = 0.0

    def create(self, key: str, data: bytes) -> bool:
        began = time.perf_counter()
        try:
            return super().create(key, data)
        finally:
            self.spent += time.perf_counter() - began


def measure_growth(
    folder: Path, sizes: Sequence[int], say: Callable[[str], None] = lambda text: None, *, apart: bool = True
) -> list[Growth]:
    """Grow one study to each size in turn, each time with a driver that resumes it, and measure a restart there.

    Args:
        folder: The study's storage.
        sizes: Numbers of finished trials, increasing.
        say: Called with lines of progress.
        apart: Whether each driver has its own process; otherwise its memory is meaningless.
    """
    found = []
    for size in sizes:
        if apart:
            growing = Growing(**_in_process("grow", folder, size))
            restart = Restart(**_in_process("restart", folder, size))
        else:
            growing, restart = _grow(folder, size), _restart(folder, size)
        found.append(Growth(trials=size, growing=growing, restart=restart))
        say(
            f"{size} trials: {1e3 * found[-1].growing.conductor:.2f} ms a trial, restart {found[-1].restart.load:.2f} s"
        )
    return found


def _in_process(verb: str, folder: Path, trials: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sweep.growth", verb, str(folder), str(trials)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return found


def _spec(folder: Path, trials: int, sampler: str) -> StudySpec:
    spec = sleeping_spec(folder, trials=trials, seconds=0.0, slots=2)
    spec["search"]["sampler"] = {"name": sampler}
    return parse_spec(json.dumps(spec).encode())


def _grow(folder: Path, trials: int) -> Growing:
    spec, storage = _spec(folder, trials, "random"), _Clocked(folder)
    if storage.keys("ledger/"):
        ledger = Ledger.load(storage)
    else:
        ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    conductor, values, sampler = Conductor(spec, ledger, StopRequest(storage, 1)), random.Random(0), [0.0]
    ask = conductor.search(ARM).propose

    def timed(*arguments: Any) -> dict[str, Any] | None:
        began = time.perf_counter()
        try:
            return ask(*arguments)
        finally:
            sampler[0] += time.perf_counter() - began

    setattr(conductor.search(ARM), "propose", timed)  # noqa: B010  (a timer around it, only in this process)
    left = trials - len(ledger.state.trials)
    while left > TIMED:
        _play(conductor, values)
        left -= 1
    began, events = time.perf_counter(), len(ledger.events)
    storage.spent = sampler[0] = 0.0
    for _ in range(left):
        _play(conductor, values)
    took = time.perf_counter() - began
    ledger.compact()
    return Growing(
        conductor=took / left,
        storage=storage.spent / left,
        sampler=sampler[0] / left,
        events=(len(ledger.events) - events) / left,
        memory_bytes=psutil.Process().memory_info().rss,
    )


def _play(conductor: Conductor, values: random.Random) -> None:
    """One trial as the conductor sees it: it is assigned, starts, and sends its last commit."""
    assert not conductor.finished
    trial = conductor.next()
    assert trial is not None
    name, value = str(trial.id), values.random()
    conductor.receive(Message(event="begun", trial=name, attempt=1))
    report = {METRIC: [value], "selection/task_loss": [value]}
    commit = Commit(trial=name, attempt=1, position=1, step=1, outcome="finished", report=report, parent=None)
    conductor.receive(Message(event="commit", trial=name, attempt=1, commit=commit))


def _restart(folder: Path, trials: int) -> Restart:
    storage = open_storage(folder)
    began = time.perf_counter()
    ledger = Ledger.load(storage)
    loaded = time.perf_counter()
    search = ArmSearch(_spec(folder, trials, "tpe"), ARM, 2)
    search.replay(ledger.state.search_trials(ARM), {})
    replayed = time.perf_counter()
    proposals = []
    for ordinal in range(trials, trials + TIMED // 5):
        asked = time.perf_counter()
        search.propose(ordinal, [], {})
        proposals.append(time.perf_counter() - asked)
        search.end(ordinal, "finished", 0.5)
    storage.delete("ledger/compacted.jsonl")
    alone = time.perf_counter()
    Ledger.load(storage).compact()
    return Restart(
        load=loaded - began,
        load_events=time.perf_counter() - alone,
        replay=replayed - loaded,
        tpe=statistics.median(proposals),
    )


def mlflow_seconds(home: Path, folder: Path, *, server: bool = True) -> dict[str, float]:
    """Seconds to deliver a finished trial's complete run, by MLflow's backend.

    Args:
        home: Home of a finished study of sleeping trials.
        folder: Folder of the stores.
        server: Whether to start a server on PostgreSQL as well, if its programs are installed.
    """
    from olfl_ray.driver.home import Home
    from olfl_ray.tracking import TrackedStudy
    from olfl_ray.tracking.mlflow import Runs, experiment_of, open_store

    storage: Storage = Home(home).storage("sleeping")
    state = Ledger.load(storage).state
    spec = parse_spec(json.dumps(dict(state.spec)).encode())
    trials: list[TrialState] = list(state.trials.values())[: TIMED // 2]

    def deliver(uri: str) -> float:
        client = open_store(uri, experiment_of(spec), folder / "artifacts")
        runs = Runs(client, TrackedStudy(spec=spec, storage=storage, home=home), state.identity, experiment_of(spec))
        began = time.perf_counter()
        for trial in trials:
            runs.deliver(trial)
        return (time.perf_counter() - began) / len(trials)

    found = {"SQLite": deliver(f"sqlite:///{folder / 'mlflow.db'}")}
    if server and postgres_programs() is not None:
        with ExitStack() as stack:
            running = MlflowServer(stack.enter_context(postgres()), folder / "server")
            running.start()
            stack.callback(running.kill)
            found["a server on PostgreSQL"] = deliver(running.uri)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["grow", "restart"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("trials", type=int)
    asked = parser.parse_args()
    measure = _grow if asked.verb == "grow" else _restart
    print(json.dumps(asdict(measure(asked.folder, asked.trials))))
