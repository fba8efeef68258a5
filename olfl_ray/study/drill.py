"""A small study whose worker and driver are killed while it runs, and an audit of its results."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from olfl_ray.driver import Home, load
from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import Committed, DriverStarted, Ended, Ledger
from olfl_ray.records import names
from olfl_ray.spec import parse_fields, spec_as_yaml
from olfl_ray.storage import LocalStorage, open_storage
from olfl_ray.study.handle import Study
from olfl_ray.study.mortal import ARMED, KILLED
from olfl_ray.study.single import run_trial, trial_of

__all__ = ["drill"]

Examined = tuple[Literal["ok", "warning", "failed"], str]
PATIENCE = 300.0
"""Seconds that each part of it may take."""
EXPERIMENT = "olfl-doctor"
MODEL = "olfl_ray.study.mortal:build"


def drill(home: Home, storage: str | None = None, tracking: Any = None) -> Iterator[Examined]:
    """Run a short study on this machine, or on the cluster that `RAY_ADDRESS` names; kill a worker of it
    and its driver with SIGKILL, start it again, and compare what was recorded with what should be.

    Args:
        home: The home folder, which keeps the study while it runs.
        storage: Storage that keeps it instead, such as s3://bucket/studies.
        tracking: As in a spec; None: MLflow's experiment olfl-doctor.

    Raises:
        SetupError: The study could not be started, or did not end.
    """
    name = f"doctor-{secrets.token_hex(4)}"
    marks = f"{(storage or str(home.studies)).rstrip('/')}/{name}-marks"
    spec = parse_fields(_fields(name, marks, storage, tracking))
    with tempfile.TemporaryDirectory(prefix="olfl-doctor-") as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(spec_as_yaml(spec), encoding="utf-8")
        try:
            yield from _disturbed(_Drill(name, home, file), marks)
        finally:
            _clear(name, home, marks)


def _fields(name: str, marks: str, storage: str | None, tracking: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": {"dataset": "digits", "model": {"name": MODEL, "marks": marks}, "batch_size": 16},
        "learner": {"steps": 800, "optimizer": {"name": "sgd", "lr": 0.1}},
        "meta": {"eta_init": 0.01, "eta_online": 0.001, "init_steps": 20},
        "eval": {"every": 100},
        "checkpoint": {"every_steps": 100},
        "replicates": 1,
        "concurrency": 2,
        "search": {
            "deterministic": True,
            "pruner": "none",
            "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.5, "log": True}},
        },
        "arms": {"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}, "online": {"trials": 2}},
        "confirm": {"seeds": 1},
        "tracking": tracking if tracking is not None else {"name": "mlflow", "experiment": EXPERIMENT},
        **({} if storage is None else {"storage": storage}),
    }


class _Drill:
    """The study, and the process that drives it."""

    def __init__(self, name: str, home: Home, file: Path) -> None:
        self.name, self.home, self._log = name, home, file.with_suffix(".log")
        self._command = [sys.executable, "-m", "olfl_ray", "sweep", "run", str(file), "--home", str(home.path)]

    def start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )

    def last_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def ledger(self) -> Ledger | None:
        try:
            return load(self.name, self.home)[1]
        except StudyError:
            return None

    def wait(self, driver: subprocess.Popen[bytes], what: str, holds: Callable[[Ledger], bool]) -> None:
        """Until something holds of the ledger; raises `SetupError` if the driver ends before, or it takes too long."""
        end = time.monotonic() + PATIENCE
        while True:
            ended = driver.poll() is not None
            ledger = self.ledger()
            if ledger is not None and holds(ledger):
                return
            if ended or time.monotonic() > end:
                reason = f"its driver ended: {self.last_line()}" if ended else f"it took more than {PATIENCE:g} s"
                raise SetupError(f"the study of `olfl doctor --chaos` did not reach {what} ({reason})")
            time.sleep(0.2)


def _disturbed(run: _Drill, marks: str) -> Iterator[Examined]:
    driver = run.start()
    try:
        run.wait(driver, "its first commit", lambda ledger: any(isinstance(one, Committed) for one in ledger.events))
        open_storage(marks).create(ARMED, b"")
        run.wait(driver, "a killed worker", lambda _: open_storage(marks).exists(KILLED))
        run.wait(driver, "a trial's second attempt", lambda ledger: bool(_resumed(ledger)))
        killed = _resumed(_there(run))[0]
        yield "ok", f"a worker was killed with SIGKILL; its trial {killed} was started again"
    finally:
        driver.kill()
        driver.wait()
    yield "ok", f"the driver (process {driver.pid}) was killed with SIGKILL"
    again = run.start()
    try:
        run.wait(again, "its end", lambda ledger: not ledger.live.driving and again.poll() is not None)
    finally:
        if again.poll() is None:
            again.kill()
            again.wait()
    if again.returncode != 0:
        raise SetupError(
            f"the same command did not complete the killed study (exit code {again.returncode}: {run.last_line()})"
        )
    yield from _audited(run, killed)


def _resumed(ledger: Ledger) -> list[str]:
    return [name for name, trial in ledger.state.trials.items() if trial.attempt > 1]


def _there(run: _Drill) -> Ledger:
    ledger = run.ledger()
    assert ledger is not None
    return ledger


def _audited(run: _Drill, killed: str) -> Iterator[Examined]:
    """Whether each result is recorded exactly once, and the killed trial is what it would have been."""
    ledger = _there(run)
    starts = sum(isinstance(event, DriverStarted) for event in ledger.events)
    ends = Counter(event.trial for event in ledger.events if isinstance(event, Ended))
    commits = Counter(event.commit for event in ledger.events if isinstance(event, Committed))
    twice = [key for counts in (ends, commits) for key, count in counts.items() if count > 1]
    unfinished = [name for name, trial in ledger.state.trials.items() if trial.state != "finished"]
    if twice or unfinished or starts != 2:
        problem = f"recorded twice: {twice}; not finished: {unfinished}; {starts} starts of a driver"
        yield "failed", f"{problem}; please report it"
    else:
        counts = f"{len(ends)} trials and {sum(commits.values())} commits"
        yield "ok", f"the same command completed it: {counts}, each recorded exactly once and tracked"
    there = {
        (row.step, row.metric): row.value for row in Study.open(run.name, home=run.home).curves(killed).itertuples()
    }
    config, resources = trial_of(
        None, overrides=(), arm=None, source=f"{run.name}/{killed}", home=run.home, allow=[MODEL]
    )
    records = [record for progress in run_trial(config, resources, home=run.home) for record in progress.records]
    here = {(record.step, metric): record.mean(metric) for record in records for metric in record.metrics}
    compared = [key for key in here if key[1] not in names.VOLATILE]
    if all(there.get(key) == here[key] for key in compared):
        yield (
            "ok",
            f"{killed} has the same {len(compared)} values, bit for bit, as the same trial without a kill on this machine",
        )
    else:
        different = sum(there.get(key) != here[key] for key in compared)
        said = (
            f"{killed}: {different} of {len(compared)} values differ from the same trial without a kill on this machine"
        )
        yield "warning", f"{said}; processors of another kind round differently"


def _clear(name: str, home: Home, marks: str) -> None:
    """Delete the study and the marks. What can't be deleted stays: the failed drill is reported instead."""
    storage = open_storage(marks)
    for key in (ARMED, KILLED):
        storage.delete(key)
    if isinstance(storage, LocalStorage):
        with suppress(OSError):
            storage.root.rmdir()
    try:
        Study.open(name, home=home).delete()
    except StudyError:
        return  # it never began, or a driver still holds it
