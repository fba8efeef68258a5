"""A command run in the test's process, next to those in separate processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import Run, in_process


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process and an empty folder; gives its exit code, output and errors."""
    return in_process(monkeypatch, capfd, tmp_path)
