"""Remove a study: its runs, everything that its storage holds, and what the home folder keeps of it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from olfl_ray.driver.datasets import DATASETS
from olfl_ray.driver.home import Home
from olfl_ray.driver.look import RUNS
from olfl_ray.errors import SetupError, StudyError, UserError
from olfl_ray.ledger import Ledger, Revised, StudyCreated
from olfl_ray.spec import StudySpec, trackers_from
from olfl_ray.storage import POINTER, TEMPORARY, Lease, LocalStorage, Storage, open_storage
from olfl_ray.tracking import TrackedStudy, explained, trackers_of

__all__ = ["remove"]

_log = logging.getLogger(__name__)

_LEDGER = "ledger/"
_OWN = re.compile(
    r"(ledger|lease|stop)/[^/]+[.]jsonl?|trials/[^/]+/c?[0-9]+/attempt-[0-9]+/.+|cache/phi/[^/]+[.]safetensors"
    rf"|tracking/.+[.]jsonl|report/.+|{'|'.join(re.escape(name) for name in (DATASETS, RUNS, POINTER, 'importances.json'))}"
)
"""Keys that a study writes. Its storage may be a folder that had other files before: `storage: .` with a study named `data`."""


def remove(spec: StudySpec, ledger: Ledger, storage: Storage, home: Home, *, keep_runs: bool = False) -> int:
    """Delete a study. One that was interrupted is repeated; until the end no driver can begin or resume the study.

    The ledger goes last, its first event at the very end: no new study of that name finds trials of the old one. Files that the
    study did not write stay, and a warning names one of them.

    Args:
        spec: The study.
        ledger: Its ledger.
        storage: Its storage.
        home: The home folder, which may hold its report, and where it is kept.
        keep_runs: Whether its records in MLflow and other trackers stay.

    Returns:
        Number of runs and other records that were deleted in trackers.

    Raises:
        StudyError: A driver runs it; or it is a copy, and its runs belong to the study that is still where it was copied from.
        SetupError: A tracker's store does not respond; then nothing is deleted but records in other stores.
    """
    name, removed = spec.name, 0
    with Lease.acquire(storage, f"olfl delete on {socket.gethostname()}") as lease:
        if not keep_runs:
            removed = _remove_records(spec, ledger, storage, home)
        there = storage.keys()
        keys = [key for key in there if _OWN.fullmatch(key)]
        leases = [key for key in keys if key.rpartition("/")[0] == Lease.key(lease.epoch).rpartition("/")[0]]
        events = [key for key in keys if key.startswith(_LEDGER)]
        for key in keys:
            if key not in leases and key not in events:
                storage.delete(key)
        for key in sorted(events, reverse=True):
            storage.delete(key)
    for key in leases:
        storage.delete(key)
    if others := sorted(set(there) - set(keys)):
        _log.warning(
            "%s: %d files there are not the study's, such as %s; they stay", storage.url, len(others), others[0]
        )
    if isinstance(storage, LocalStorage):
        _remove_empty(storage.root, {key.rpartition("/")[0] for key in keys})
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
    trackers = []
    for tracking in given.values():
        named = tuple(one for one in trackers_from(tracking) if ":" not in one.name)
        study = TrackedStudy(spec=spec.model_copy(update={"tracking": named}), storage=storage, home=home.path)
        trackers += trackers_of(study)
    for tracker in trackers:
        try:
            with explained(tracker.name):
                _refuse_copy(tracker.kept_in(ledger.state.identity), spec.name, ledger.state.identity, storage)
                removed += tracker.remove(ledger.state.identity)
        except StudyError:
            raise
        except UserError as error:
            problem = problem or str(error)
    if problem:
        raise SetupError(f"{problem}; or delete only the study and keep its runs: `keep_runs=True`")
    return removed


def _refuse_copy(locations: Iterable[str], name: str, identity: str, storage: Storage) -> None:
    """Refuse to delete the runs of a study that is still in another location, of which this folder is a copy.

    Raises:
        StudyError: It is there.
    """
    for location in locations:
        try:
            other = open_storage(f"{location.rstrip('/')}/{name}")
            if other.url == storage.url or Ledger.load(other).state.identity != identity:
                continue
        except (UserError, ValueError):  # it was moved here
            continue
        raise StudyError(
            f"study {name!r}: its runs belong to {other.url}, of which {storage.url} is a copy; delete the copy alone, and leave "
            "the runs there: `keep_runs=True`"
        )


def _remove_empty(root: Path, folders: Iterable[str]) -> None:
    """Remove the folders that a study's files were in, up to the root, as far as nothing else is in them."""
    parents = {parent for folder in folders for parent in (root / folder, *(root / folder).parents)}
    for folder in sorted((one for one in parents if one.is_relative_to(root)), reverse=True):
        with suppress(OSError):
            for left in folder.glob(
                f"{TEMPORARY}[0-9]*-{'[0-9a-f]' * 16}"
            ):  # of a process that was killed while it wrote
                left.unlink()
            folder.rmdir()
