"""A command's help ends with examples that it accepts; a shell completes commands, options and names of studies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.parsing import commands, parse
from typer.main import get_command

from olfl_ray.cli.app import app

COMMANDS = {" ".join(path): command for path, command in commands()}


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_command_are_of_that_command_and_are_accepted(name: str) -> None:
    head, _, body = COMMANDS[name].epilog.partition("\n\n")
    lines = [line.strip() for line in body.splitlines()]
    assert head == "Examples:"
    assert lines
    for line in lines:
        assert line.startswith(f"olfl {name}")
        assert len(line) <= 78, "it would be broken into two in a terminal of 80 columns"
        parse(line)


def test_examples_of_the_program_are_accepted(olfl) -> None:
    code, out, _ = olfl("--help")
    lines = [line.strip() for line in out.partition("Examples:")[2].splitlines() if line.strip()]
    assert (code, len(lines)) == (0, 3)
    assert get_command(app).epilog.endswith(lines[-1])
    for line in lines:
        parse(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_argument_and_option_has_its_meaning(name: str) -> None:
    assert [parameter.name for parameter in COMMANDS[name].params if not parameter.help] == []


@pytest.mark.parametrize(
    "line", ["olfl sweep runn spec.yaml", "olfl sweep run", "olfl sweep run a.yaml --nothing", "olfl ui --port here"]
)
def test_a_wrong_line_is_not_accepted(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no command|missing|no such option|valid integer"):
        parse(line)


def _completed(words: str, folder: Path, **variables: str) -> list[str]:
    """What bash offers for the last word."""
    found: dict[str, Any] = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "olfl_ray"],
        env={**os.environ, "_OLFL_COMPLETE": "complete_bash", **found, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_a_shell_completes_commands_options_and_studies(tmp_path: Path) -> None:
    for name in ("digits", "diabetes", "mnist"):
        (tmp_path / ".olfl" / "studies" / name).mkdir(parents=True)
    (tmp_path / "elsewhere" / "studies" / "dunes").mkdir(parents=True)
    assert {"resume", "retry", "report"} <= set(_completed("olfl sweep re", tmp_path))
    assert _completed("olfl sweep run --dry", tmp_path) == ["--dry-run"]
    assert _completed("olfl sweep status di", tmp_path) == ["diabetes", "digits"]
    assert _completed("olfl sweep status --home elsewhere d", tmp_path) == ["dunes"]
    assert _completed("olfl sweep status d", tmp_path, OLFL_HOME=str(tmp_path / "nowhere")) == []


def test_the_package_runs_as_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "olfl_ray", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "_OLFL_COMPLETE=complete_bash" in done.stdout
    assert done.stdout.rstrip().endswith("_olfl_completion olfl")
