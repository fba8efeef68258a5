"""What a command's help ends with: examples of its use, and what a shell completes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import typer

__all__ = ["examples", "study_names"]


def examples(*commands: str) -> str:
    """Examples of a command, as the end of its help: a block of code in a terminal and in Markdown.

    Args:
        commands: Complete command lines.
    """
    return "Examples:\n\n" + "\n".join(f"    {command}" for command in commands)


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the home folder's studies, for a shell to complete; none where the folder can't be read.

    Args:
        context: The command so far; its `--home` counts.
        incomplete: The start of the name.
    """
    home = context.params.get("home") or os.environ.get("OLFL_HOME") or ".olfl"
    with suppress(OSError, RuntimeError):
        folders = sorted((Path(home).expanduser() / "studies").iterdir())
        return [folder.name for folder in folders if folder.name.startswith(incomplete) and folder.is_dir()]
    return []
