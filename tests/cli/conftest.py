"""A command run in the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from olfl_ray.cli import main


@pytest.fixture
def olfl(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder; gives its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["olfl", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        found = capfd.readouterr()
        return int(left.value.code or 0), found.out, found.err

    return run
