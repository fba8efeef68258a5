"""Remove a study: its runs, everything that its storage holds, and what the home folder keeps of it."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from olfl_ray.driver.home import Home
from olfl_ray.errors import SetupError, UserError
from olfl_ray.ledger import Ledger, Revised, StudyCreated
from olfl_ray.spec import StudySpec, trackers_from
from olfl_ray.storage import Lease, LocalStorage, Storage
from olfl_ray.tracking import TrackedStudy, explained, trackers_of

__all__ = ["remove"]

_LEDGER = "ledger/"


def remove(spec: StudySpec, ledger: Ledger, storage: Storage, home: Home, *, keep_runs: bool = False) -> int:
    """Delete a study. One that was interrupted is repeated; until the end no driver can begin or resume the study.

    The ledger goes last, its first event at the very end: no new study of that name finds trials of the old one.

    Args:
        spec: The study.
        ledger: Its ledger.
        storage: Its storage.
        home: The home folder, which may hold its report, and where it is kept.
        keep_runs: Whether its records in MLflow and other trackers stay.

    Returns:
        Number of runs and other records that were deleted in trackers.

    Raises:
        StudyError: A driver runs it.
        SetupError: A tracker's store does not respond; then nothing is deleted but records in other stores.
    """
    name, removed = spec.name, 0
    with Lease.acquire(storage, f"olfl delete on {socket.gethostname()}") as lease:
        if not keep_runs:
            removed = _remove_records(spec, ledger, storage, home)
        keys = storage.keys()
        leases = [key for key in keys if key.rpartition("/")[0] == Lease.key(lease.epoch).rpartition("/")[0]]
        events = [key for key in keys if key.startswith(_LEDGER)]
        for key in keys:
            if key not in leases and key not in events:
                storage.delete(key)
        for key in sorted(events, reverse=True):
            storage.delete(key)
    for key in leases:
        storage.delete(key)
    if isinstance(storage, LocalStorage):
        _remove_empty(storage.root)
    if storage.url != LocalStorage(home.study_folder(name)).url:  # what is left is where it was kept, and its report
        shutil.rmtree(home.study_folder(name), ignore_errors=True)
    return removed


def _remove_records(spec: StudySpec, ledger: Ledger, storage: Storage, home: Home) -> int:
    """Delete its records in every store that it was ever tracked in; those of a user's own tracker stay.

    Raises:
        SetupError: A store does not respond.
    """
    specs = [event.spec for event in ledger.events if isinstance(event, StudyCreated | Revised)]
    given = {json.dumps(one["tracking"], sort_keys=True): one["tracking"] for one in specs}
    removed, problem = 0, ""
    for tracking in given.values():
        named = tuple(one for one in trackers_from(tracking) if ":" not in one.name)
        study = TrackedStudy(spec=spec.model_copy(update={"tracking": named}), storage=storage, home=home.path)
        for tracker in trackers_of(study):
            try:
                with explained(tracker.name):
                    removed += tracker.remove(ledger.state.identity)
            except UserError as error:
                problem = problem or str(error)
    if problem:
        raise SetupError(f"{problem}; or delete the study alone, and leave its runs there: `keep_runs=True`")
    return removed


def _remove_empty(folder: Path) -> None:
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            inner.rmdir()
    with suppress(OSError):
        folder.rmdir()
