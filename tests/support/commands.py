"""The command line in processes of its own, and what its studies left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from olfl_ray.ledger import Ledger, StudyState
from olfl_ray.study import Home

SUPPORT = str(Path(__file__).parent)


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "olfl_ray.cli", *map(str, args)]


def environment() -> dict[str, str]:
    """That of this process, with the modules of this folder for Ray's workers."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])}


def olfl(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*args), capture_output=True, text=True, timeout=300, cwd=cwd, check=False, env=environment()
    )


def start(*args: object, cwd: Path, log: str) -> subprocess.Popen[str]:
    """Start a command; its output goes to a file of `cwd`."""
    with (cwd / log).open("w") as output:
        return subprocess.Popen(command(*args), stdout=output, stderr=output, text=True, cwd=cwd, env=environment())


def state_of(home: Path, name: str) -> StudyState | None:
    """Where a study stands; None before it is there."""
    storage = Home(home).storage(name)
    return Ledger.load(storage).state if storage.keys("ledger/") else None


def wait_until(holds: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not hold within {seconds:g} s"
        time.sleep(0.2)
