"""The only way to the terminal: no escape sequence of a spec, a ledger, a host or a library gets there."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from olfl_ray.spec import printable

__all__ = ["Terminal", "log_to_terminal"]


class Terminal(Console):
    """A console whose own colours and cursor movements are the only ones."""

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """What is printed, piece by piece; `control` marks the console's own sequences."""
        for text, style, control in super().render(*args, **kwargs):
            yield Segment(text if control else printable(text), style, control)


def log_to_terminal() -> None:
    """Show warnings of this package and of libraries that have no handler of their own as lines on standard error."""
    handler = _Lines(logging.WARNING)
    logging.lastResort = handler


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from olfl_ray.cli.output import errors

        errors.print(self.format(record), markup=False, highlight=False)
