"""Run a study: the same operation starts it, goes on with it, and finds that nothing is left to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olfl_ray.analysis import ArmResult, final_table, write_report
from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import DriverStarted, DriverStopped, Event, Ledger, StudyState, TrialState
from olfl_ray.spec import StudySpec, parse_spec, trial_config
from olfl_ray.storage import Lease, Storage
from olfl_ray.study.home import Home, data_root
from olfl_ray.sweep import Conductor, decision_steps
from olfl_ray.tracking import Sink, prepare_store
from olfl_ray.trial import Place, check
from olfl_ray.worker import Assignment

__all__ = ["StudyResult", "check_study", "report", "resume", "run", "status"]

Watcher = Callable[[Event, StudyState], None]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Args:
        state: Its trials.
        table: One row an arm.
        report: The report's page.
        tracking_uri: Where MLflow keeps the runs.
        undelivered: Trials that MLflow does not have yet; the next start delivers them.
        finished: Whether nothing is left to do; else it was interrupted, and the next start goes on.
        nothing_to_do: Whether it was finished before.
    """

    state: StudyState
    table: list[ArmResult]
    report: Path
    tracking_uri: str
    undelivered: int
    finished: bool
    nothing_to_do: bool


def check_study(spec: StudySpec, home: Home) -> None:
    """Check the substance of every arm before anything starts.

    Raises:
        UserError: Names the field, the value and the next move.
    """
    if spec.storage is not None and "://" in spec.storage and not spec.storage.startswith("file://"):
        raise SetupError(f"storage: {spec.storage!r} is not a local path; use a path, or leave it out")
    from olfl_ray.sweep.tuner import check_resources

    check_resources(spec)
    place = _place(spec, home)
    for arm in spec.arms:
        check(trial_config(spec, arm, {}, seeds=(spec.seed,)), place)


def _device(spec: StudySpec) -> str:
    return "cuda" if spec.resources.gpu > 0 else "cpu"


def _place(spec: StudySpec, home: Home) -> Place:
    return Place(cache=home.cache, data_root=data_root(), studies=home.studies, device=_device(spec))


def _storage(spec: StudySpec, home: Home) -> Storage:
    if spec.storage is None:
        return home.storage(spec.name)
    from olfl_ray.storage import open_storage

    return open_storage(Path(spec.storage.removeprefix("file://")) / spec.name)


def run(spec: StudySpec, *, home: Home, watch: Watcher | None = None) -> StudyResult:
    """Run what a study lacks.

    Args:
        spec: The study.
        home: The home folder.
        watch: Called with each event of the ledger and the state after it.

    Raises:
        UserError: The spec, this machine or another driver does not allow it; nothing was started.
    """
    check_study(spec, home)
    uri = spec.tracking.uri or home.tracking_uri
    client = prepare_store(uri, spec.tracking.experiment, home.artifacts if spec.tracking.uri is None else None)
    storage = _storage(spec, home)
    try:
        ledger = Ledger.load(storage)
    except StudyError:
        if storage.keys("ledger/"):
            raise
        ledger = Ledger.create(
            storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, _versions()
        )
    _same_digest(spec, ledger.state)
    with Lease.acquire(storage, f"olfl on {socket.gethostname()}", above=ledger.state.epoch) as lease:
        ledger = Ledger.load(storage)
        ledger.append(DriverStarted(epoch=lease.epoch, host=socket.gethostname(), pid=os.getpid()))
        sink = Sink(client, spec, storage, _git_commit())

        def observe(event: Event) -> None:
            sink.observe(event, ledger.state)
            if watch is not None:
                watch(event, ledger.state)

        conductor = Conductor(spec, ledger, (observe,))
        nothing_to_do = conductor.finished
        sink.start(ledger.state)
        try:
            if not nothing_to_do:
                from olfl_ray.sweep.tuner import run_trials

                run_trials(conductor, lambda trial: _assign(spec, home, storage, trial))
        finally:
            done = conductor.finished
            conductor.close()
            importances = {arm: search.importances() for arm, search in conductor.arms.items()}
            storage.write("importances.json", json.dumps(importances).encode())
            path = _write_report(spec, ledger.state, storage, home)
            undelivered = sink.close(ledger.state, {"report": path.parent}, finished=done)
            ledger.append(DriverStopped(epoch=lease.epoch, reason="finished" if done else "stopped"))
    return StudyResult(
        state=ledger.state,
        table=final_table(spec, ledger.state),
        report=path,
        tracking_uri=uri,
        undelivered=undelivered,
        finished=done,
        nothing_to_do=nothing_to_do,
    )


def _write_report(spec: StudySpec, state: StudyState, storage: Storage, home: Home) -> Path:
    try:
        importances: dict[str, dict[str, float]] = json.loads(storage.read("importances.json"))
    except FileNotFoundError:
        importances = {}
    out = home.study_folder(spec.name) / "report"
    return write_report(spec=spec, state=state, storage=storage, out=out, importances=importances)


def _assign(spec: StudySpec, home: Home, storage: Storage, trial: TrialState) -> Assignment:
    config = trial_config(spec, trial.id.arm, trial.params, seeds=tuple(trial.seeds), confirming=trial.id.confirming)
    root = data_root()
    return Assignment(
        study=storage.url,
        trial=str(trial.id),
        config=config.model_dump_json(by_alias=True),
        cache=str(home.cache),
        data_root=str(root) if root else None,
        studies=str(home.studies),
        device=_device(spec),
        threads=spec.resources.cpu,
        commit_every=spec.checkpoint.every_steps,
        decide_at=() if trial.id.confirming else decision_steps(spec, config.learner.steps),
        max_seconds=spec.budget.trial_seconds,
    )


def _same_digest(spec: StudySpec, state: StudyState) -> None:
    if state.digest == spec.digest:
        return
    before = parse_spec(json.dumps(dict(state.spec)).encode(), source="the study's spec")
    field = _first_difference(before.model_dump(mode="json"), spec.model_dump(mode="json"))
    raise StudyError(
        f"name: a study {spec.name!r} with another spec is there already (first difference: {field}); "
        "choose another name with --name, or put the field back"
    )


def _first_difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return f"{path} was {old!r}, is {new!r}"


def load(name: str, home: Home) -> tuple[StudySpec, Ledger, Storage]:
    """A study's spec, ledger and storage.

    Raises:
        StudyError: There is no such study.
    """
    storage = home.storage(name)
    if name not in home.names():
        there = ", ".join(home.names()) or "none yet"
        raise StudyError(f"study: there is no study {name!r} in {home.path}; there are: {there}")
    ledger = Ledger.load(storage)
    return parse_spec(json.dumps(dict(ledger.state.spec)).encode(), source=f"study {name}"), ledger, storage


def resume(name: str, *, home: Home, watch: Watcher | None = None) -> StudyResult:
    """Go on with a study by its name; the same as `run` with its spec."""
    return run(load(name, home)[0], home=home, watch=watch)


def status(name: str, *, home: Home) -> StudyState:
    """Where a study stands."""
    return load(name, home)[1].state


def report(name: str, *, home: Home) -> Path:
    """Write a study's report anew and give its page."""
    spec, ledger, storage = load(name, home)
    return _write_report(spec, ledger.state, storage, home)


def _versions() -> dict[str, str]:
    names = ("olfl_ray", "torch", "ray", "optuna", "mlflow", "pyarrow", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
