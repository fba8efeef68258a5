"""The command line, run in this process or in new ones, and the studies that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray.cli import main
from olfl_ray.ledger import Ledger, StudyState
from olfl_ray.study import Home

SUPPORT = str(Path(__file__).parent)
Run = Callable[..., tuple[int, str, str]]
"""Runs a command; returns its exit code, output and errors."""


def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Run commands in this process, in a folder: a new process would take seconds to start."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["olfl", *map(str, arguments)])
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as left:
            main()
        torch.set_num_threads(threads)  # `trial run` sets its own
        found = capfd.readouterr()
        return int(left.value.code or 0), found.out, found.err

    return run


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "olfl_ray.cli", *map(str, args)]


def environment(*folders: object) -> dict[str, str]:
    """This process's environment, with the modules of this folder, and of others, for Ray's workers."""
    path = [*map(str, folders), SUPPORT, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def olfl(*args: object, cwd: Path, modules: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command to completion.

    Args:
        args: Its arguments.
        cwd: Its working folder.
        modules: Folders of modules that builders come from.
    """
    return subprocess.run(
        command(*args), capture_output=True, text=True, timeout=300, cwd=cwd, check=False, env=environment(*modules)
    )


def start(*args: object, cwd: Path, log: str) -> subprocess.Popen[str]:
    """Start a command; its output goes to a file of `cwd`."""
    with (cwd / log).open("w") as output:
        return subprocess.Popen(command(*args), stdout=output, stderr=output, text=True, cwd=cwd, env=environment())


def experiment(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of experiments/paper to completion."""
    words = [sys.executable, "-m", "experiments.paper", *map(str, args)]
    root = Path(__file__).parents[2]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=300, cwd=cwd, check=False, env=environment(root)
    )


def state_of(home: Path, name: str) -> StudyState | None:
    """The state of a study; None if it does not exist yet."""
    storage = Home(home).storage(name)
    return Ledger.load(storage).state if storage.keys("ledger/") else None


def wait_until(holds: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not hold within {seconds:g} s"
        time.sleep(0.2)
