"""Remove a study: everything that its storage holds, and what the home folder keeps of it."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from pathlib import Path

from olfl_ray.driver.home import Home
from olfl_ray.storage import Lease, LocalStorage, Storage

__all__ = ["remove"]

_LEDGER = "ledger/"


def remove(name: str, storage: Storage, home: Home) -> None:
    """Delete a study. One that was interrupted is repeated; until the end no driver can begin or resume the study.

    The ledger goes last, its first event at the very end: no new study of that name finds trials of the old one.

    Args:
        name: The study.
        storage: Its storage.
        home: The home folder, which may hold its report, and where it is kept.

    Raises:
        StudyError: A driver runs it.
    """
    with Lease.acquire(storage, f"olfl delete on {socket.gethostname()}") as lease:
        keys = storage.keys()
        leases = [key for key in keys if key.rpartition("/")[0] == Lease.key(lease.epoch).rpartition("/")[0]]
        ledger = [key for key in keys if key.startswith(_LEDGER)]
        for key in keys:
            if key not in leases and key not in ledger:
                storage.delete(key)
        for key in sorted(ledger, reverse=True):
            storage.delete(key)
    for key in leases:
        storage.delete(key)
    if isinstance(storage, LocalStorage):
        _remove_empty(storage.root)
    if storage.url != LocalStorage(home.study_folder(name)).url:  # what is left is where it was kept, and its report
        shutil.rmtree(home.study_folder(name), ignore_errors=True)


def _remove_empty(folder: Path) -> None:
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            inner.rmdir()
    with suppress(OSError):
        folder.rmdir()
