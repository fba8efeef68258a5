"""Warnings in a terminal: one line each, on standard error."""

from __future__ import annotations

import logging

__all__ = ["log_to_terminal"]


def log_to_terminal() -> None:
    """Show warnings of this package and of libraries that have no handler of their own as lines on standard error."""
    handler = _Lines(logging.WARNING)
    logging.lastResort = handler


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from olfl_ray.cli.output import errors

        errors.print(self.format(record), markup=False, highlight=False)
