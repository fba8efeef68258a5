"""A small disk that can be filled: a separate file system if one can be mounted, else a limit on the size of files."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SmallDisk", "small_disk"]

MEGABYTES = 64
LARGEST_FILE = 4096
"""Maximum file size in bytes if only the size of files can be limited."""


class SmallDisk:
    """A folder whose disk can be filled.

    Args:
        folder: The folder.
        mounted: Whether it is a separate file system.
    """

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self._filler = folder / ".filler"

    def fill(self, processes: Callable[[], Iterable[int]]) -> None:
        """Fill the disk; call it again to fill space that has been freed since.

        Args:
            processes: Returns the processes that write there.
        """
        if self.mounted:
            self._take_all()
            return
        for process in processes():
            try:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))
            except ProcessLookupError:
                continue

    def free(self) -> None:
        """Free the space again; a limit ends with the processes that have it."""
        self._filler.unlink(missing_ok=True)

    def _take_all(self) -> None:
        size = 2**20
        with self._filler.open("ab", buffering=0) as filler:
            while size:
                try:
                    if filler.write(bytes(size)) < size:
                        size //= 2
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """An empty folder on a small disk; only root can mount one."""
    folder.mkdir(parents=True)
    mounted = False
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(folder, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
