"""The command `olfl`: parse and print; every command is a thin shell over one public function."""

from __future__ import annotations

import sys

from olfl_ray.errors import INTERRUPTED

__all__ = ["main"]


def main() -> None:
    """Entry point of `olfl`. Ctrl-C ends it with one line, also while its modules are imported."""
    try:
        from olfl_ray.cli.app import app, run_app

        run_app(app, "olfl")
    except KeyboardInterrupt:
        print("olfl: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
