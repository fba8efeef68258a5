"""Ctrl-C ends a command with one line and exit code 130, whatever it is doing."""

from __future__ import annotations

import builtins
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run
from support.written import begun

from olfl_ray import study

PART = {
    "check_dataset": ("data", "check", "digits"),
    "describe_data": ("data", "list"),
    "prepare_data": ("data", "prepare", "digits"),
    "diagnose": ("doctor",),
    "explain_loss": ("loss", "explain", "s/online/0"),
    "export_loss": ("loss", "export", "s/online/0", "--standalone", "loss.py"),
    "list_studies": ("sweep", "list"),
    "trial_of": ("trial", "run", "study.yaml"),
    "write_project": ("init", "mine"),
    "Study.compare": ("sweep", "compare", "s", "s"),
    "Study.delete": ("sweep", "delete", "s", "--yes"),
    "Study.export": ("trial", "export", "s/online/0"),
    "Study.overview": ("sweep", "status", "s"),
    "Study.report": ("sweep", "report", "s"),
    "Study.trial": ("trial", "list", "s"),
}
"""What the library does in a command when the signal comes."""


def interrupted(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal was ignored")


@pytest.mark.parametrize("part", PART)
def test_an_interrupt_is_one_line(part: str, olfl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun(tmp_path / ".olfl")
    *owner, name = part.split(".")
    monkeypatch.setattr(getattr(study, owner[0]) if owner else study, name, interrupted)
    assert olfl(*PART[part]) == (130, "", "olfl: interrupted\n")


def test_an_interrupt_before_the_modules_are_imported_is_one_line(olfl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def importing(name: str, *args: Any, **options: Any) -> Any:
        return interrupted() if name == "olfl_ray.cli.app" else imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert olfl("--version") == (130, "", "olfl: interrupted\n")
