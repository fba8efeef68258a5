"""A command run in the test's own process."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import Run, in_process


@pytest.fixture
def olfl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in an empty folder; returns its exit code, output and errors."""
    return in_process(monkeypatch, capfd, tmp_path)
