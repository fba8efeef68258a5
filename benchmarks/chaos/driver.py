"""A driver as a user starts it: a command line in its own process, killed alone or with everything that it started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

__all__ = ["Driver"]


class Driver:
    """One start of a program, `olfl` by default.

    Args:
        command: Its arguments.
        module: The program's module.
        log: Where its output is appended.
        environment: Variables added to this process's environment.
    """

    def __init__(
        self,
        *command: str | Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        module: str = "olfl_ray.cli",
    ) -> None:
        self.log = log
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code; None while it is running."""
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: It is still running after this time.
        """
        return self._process.wait(seconds)

    def kill(self, *, machine: bool = False) -> None:
        """End it with SIGKILL, if it is still running.

        Args:
            machine: Also end everything that it started at the same moment, as a power cut would.
        """
        started = self._started() if machine else []
        self._process.kill()
        for process in started:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()

    def output(self) -> str:
        """Its output."""
        return self.log.read_bytes()[self._from :].decode(errors="replace")

    def workers(self) -> list[int]:
        """Ids of the processes that write for it: its trials' processes, and its own."""
        return [self.pid, *(process.pid for process in self._started() if _named(process).startswith("ray::"))]

    def _started(self) -> list[psutil.Process]:
        try:
            found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return found


def _named(process: psutil.Process) -> str:
    try:
        return str((process.cmdline() or [""])[0])
    except psutil.Error:
        return ""
