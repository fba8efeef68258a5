"""What a study needs of this machine and its services, examined one by one before a study needs it."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from olfl_ray.driver import Home, data_root, dataset_lines, dataset_notes, describe_data, resolved
from olfl_ray.errors import UserError
from olfl_ray.machine import processor, version_of
from olfl_ray.memory import free_memory, host_memory
from olfl_ray.remote import RayCluster, spec_on
from olfl_ray.spec import StudySpec, parse_fields, without_secrets
from olfl_ray.storage import Storage, open_storage
from olfl_ray.tracking import TrackedStudy, explained, trackers_of

__all__ = ["EXAMPLE", "Finding", "check_conditional_writes", "diagnose"]

GIB = 2**30
LEAST_MEMORY, LEAST_DISK = 2 * GIB, 1 * GIB
"""Below this much free memory or disk space a small study may fail."""
CALLERS = 8
"""Concurrent callers that try to create the same object."""
EXAMPLE: dict[str, Any] = {
    "name": "doctor",
    "task": {"dataset": "digits"},
    "search": {"parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 1.0, "log": True}}},
}
"""The study that is assumed if none is given."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Args:
        check: What: versions, machine, gpu, storage, tracking, data, ray, job server or chaos.
        state: ok; warning: a study runs, but perhaps not as you expect; failed: a study would be refused or would fail.
        found: What was found; if it failed, with the next move.
    """

    check: str
    state: Literal["ok", "warning", "failed"]
    found: str


Found = Iterator[tuple[Literal["ok", "warning", "failed"], str]]


def diagnose(
    spec: StudySpec | None = None,
    *,
    home: Home,
    storage: str | None = None,
    address: str | None = None,
    chaos: bool = False,
) -> Iterator[Finding]:
    """Check what a study needs. Starts Ray, or connects to the cluster that `RAY_ADDRESS` names.

    Args:
        spec: The study, whose data, storage and tracking are examined; None: `EXAMPLE`, with what the environment names.
        home: The home folder.
        storage: Storage of studies, instead of the spec's.
        address: A cluster's job server, or a target of the settings file. It is checked instead of Ray on this machine, with
            the target's storage and tracking where the spec names none.
        chaos: Also run a short study that loses a worker and its driver to SIGKILL, and audit it.
    """
    from olfl_ray.study.drill import drill

    given = spec or parse_fields(EXAMPLE)
    if address is not None:
        with suppress(UserError):  # which the check of the job server reports
            given = spec_on(given, RayCluster.connect(address))
    given = resolved(given)
    location = storage or given.storage.url or str(home.studies)
    checks: dict[str, Callable[[], Found]] = {
        "versions": _versions,
        "machine": lambda: _machine(home),
        "gpu": _gpus,
        "storage": lambda: _storage(location),
        "tracking": lambda: _tracking(given, home, location),
        "data": lambda: _data(given, home, own=spec is not None),
        **({"ray": _ray} if address is None else {"job server": lambda: _job_server(address)}),
        **(
            {"chaos": lambda: drill(home, storage or given.storage.url, None if spec is None else given.tracking)}
            if chaos
            else {}
        ),
    }
    for name, check in checks.items():
        try:
            for state, found in check():
                yield Finding(check=name, state=state, found=found)
        except UserError as error:
            yield Finding(check=name, state="failed", found=str(error))
        except Exception as error:  # of a library: the other checks still run
            reason = without_secrets(str(error)).strip().splitlines() or [""]
            yield Finding(check=name, state="failed", found=f"{type(error).__name__}: {reason[0][:300]}")


def _versions() -> Found:
    needed = [Requirement(text) for text in requires("olfl_ray") or ()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in sorted(needed, key=lambda one: one.name):
        found = version_of(one.name)
        if found == "not installed" or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found}, but {one.specifier} is needed")
    if wrong:
        yield "failed", f"{'; '.join(wrong)}; install them: pip install --upgrade olfl_ray"
    shown = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "ray", "optuna", "mlflow", "pyarrow"))
    yield "ok", f"olfl_ray {version('olfl_ray')}, Python {platform.python_version()}, {shown}"


def _machine(home: Home) -> Found:
    cores, total, free = os.cpu_count() or 1, host_memory(), free_memory()
    disk = shutil.disk_usage(home.path).free
    yield "ok", f"{cores} cores ({processor()}), {total / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB of it free"
    yield "ok", f"home folder {home.path}, {disk / GIB:.1f} GiB of disk space free"
    if free < LEAST_MEMORY:
        yield "warning", f"only {free / GIB:.1f} GiB of memory is free; end other programs, or lower concurrency"
    if disk < LEAST_DISK:
        yield (
            "warning",
            f"{home.path}: only {disk / GIB:.1f} GiB of disk space is free; free some, or choose another home",
        )


def _gpus() -> Found:
    import torch

    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").exists():
            built = torch.version.cuda or "no CUDA"
            yield (
                "warning",
                f"the machine has a GPU driver, but torch ({built}) can't use it; install a build for that driver",
            )
        else:
            yield "ok", "none: trials run on the CPU"
        return
    for index in range(torch.cuda.device_count()):
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        assert (ones @ ones).sum().item() == 64.0**3
        properties = torch.cuda.get_device_properties(index)
        yield (
            "ok",
            f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}; a test product was correct",
        )


def _storage(location: str) -> Found:
    storage = open_storage(location)
    begin = time.monotonic()
    check_conditional_writes(storage)
    took = time.monotonic() - begin
    yield (
        "ok",
        f"{storage.url}: exactly one of {CALLERS} concurrent conditional writes succeeded ({took:.2f} s with reading and deleting)",
    )


def check_conditional_writes(storage: Storage) -> None:
    """Check what a study's single driver rests on: of concurrent `create` calls exactly one wins, and all see its bytes.

    Args:
        storage: Where a small object is created and deleted again.

    Raises:
        SetupError: The storage refuses to read or write.
        RuntimeError: It breaks its guarantee.
    """
    key = f"doctor-{secrets.token_hex(8)}"
    try:
        with ThreadPoolExecutor(CALLERS) as pool:
            won = list(pool.map(lambda caller: storage.create(key, b"%d" % caller), range(CALLERS)))
        winners = [caller for caller, one in enumerate(won) if one]
        if len(winners) != 1 or storage.read(key) != b"%d" % winners[0]:
            raise RuntimeError(
                f"{storage.url}: {len(winners)} of {CALLERS} concurrent conditional writes succeeded, so two drivers could run "
                "one study; use a storage with conditional writes"
            )
        storage.write(key, b"again")
        if storage.read(key) != b"again" or not storage.exists(key):
            raise RuntimeError(f"{storage.url}: a write was not visible at once; use a consistent storage")
    finally:
        storage.delete(key)


def _tracking(spec: StudySpec, home: Home, location: str) -> Found:
    study = TrackedStudy(spec=spec, storage=open_storage(f"{location.rstrip('/')}/{spec.name}"), home=home.path)
    trackers = trackers_of(study)
    for tracker in trackers:
        with explained(tracker.name):
            tracker.check()
            yield "ok", f"{tracker.name}: {tracker.location}"
    if not trackers:
        yield "ok", "none: records stay in the storage"


def _data(spec: StudySpec, home: Home, *, own: bool) -> Found:
    root = data_root()
    if root is not None and not root.is_dir():
        yield "warning", f"OLFL_DATA: {root} is not a folder; correct it, or unset it"
    here = [name for name, *_, where in describe_data() if not where.startswith(("download", "OLFL_DATA"))]
    yield "ok", f"built-in data sets on this machine: {', '.join(here)} (`olfl data list` shows the others)"
    if own:
        for line in dataset_lines(dataset_notes(spec, home)):
            yield "ok", line


def _ray() -> Found:
    from olfl_ray.sweep.probe import COMPARED, probed

    begin = time.monotonic()
    with probed() as ray:
        took = time.monotonic() - begin
        kind = "embedded, started" if ray.embedded else f"cluster {os.environ.get('RAY_ADDRESS', '')}, reached"
        yield "ok", f"{kind} in {took:.1f} s; {len(ray.machines)} machine{'s' * (len(ray.machines) != 1)} for trials"
        if not ray.machines:
            yield "warning", "no machine with CPUs or GPUs is there yet; with resources.may_join trials wait for one"
        for machine in ray.machines:
            cpus, gpus = (machine.resources.get(name, 0) for name in ("CPU", "GPU"))
            what = f"{machine.address}: {cpus:g} CPU, {gpus:g} GPU"
            if machine.problem:
                yield "failed", f"{what}: {machine.problem}; install the same olfl_ray there, and check its memory"
                continue
            other = [name for name in COMPARED if machine.versions[name] != ray.here[name]]
            if other:
                shown = ", ".join(f"{name} {machine.versions[name]} (here {ray.here[name]})" for name in other)
                yield "failed", f"{what}: {shown}; install the same versions on all machines"
            elif not ray.embedded:
                yield "ok", f"{what}, the same versions as here"


def _job_server(address: str) -> Found:
    cluster = RayCluster.connect(address)
    studies = sorted({attempt.study for attempt in cluster.server.attempts()})
    yield "ok", f"{cluster.server.address} answers and accepts the token; studies: {', '.join(studies) or 'none yet'}"
