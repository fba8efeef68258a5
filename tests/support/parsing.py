"""Command lines of `olfl` that a page or a help text shows: parsed as the program parses them, and not run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from olfl_ray.cli.app import app


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command that does something, with the words that lead to it."""
    command = get_command(app) if command is None else command
    if not hasattr(command, "commands"):
        yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def parse(line: str) -> dict[str, Any]:
    """The parameters of a line such as `olfl sweep status digits`; raises as the program does if it has no such option.

    Args:
        line: From `olfl` to the end, or to a comment, redirection, pipe or `&&`.
    """
    words = shlex.split(line, comments=True)
    end = next((index for index, word in enumerate(words) if word in ("&&", "|", ">", ">>", "&", ";")), len(words))
    program, *rest = words[:end]
    assert program == "olfl", line
    command = get_command(app)
    while rest and hasattr(command, "commands"):
        name, *rest = rest
        if name.startswith("-"):
            assert name in {option for parameter in command.params for option in parameter.opts} | {"--help"}, line
            return {}
        assert name in command.commands, f"olfl has no command {name!r}: {line}"
        command = command.commands[name]
    if rest == ["--help"]:
        return {}
    parameters: dict[str, Any] = command.make_context("olfl", rest).params
    return parameters
