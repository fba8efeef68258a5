"""The command `olfl`: parse and print; every command is a thin shell over one public function."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from olfl_ray.errors import INTERRUPTED
from olfl_ray.lazy import lazily

if TYPE_CHECKING:
    from olfl_ray.cli.app import run_app

__all__ = ["main", "run_app"]

__getattr__ = lazily(__name__, {"run_app": "app"})


def main() -> None:
    """Entry point of `olfl`. Ctrl-C ends it with one line, also while its modules are imported."""
    try:
        from olfl_ray.cli.app import app, run_app

        run_app(app, "olfl")
    except KeyboardInterrupt:
        print("olfl: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
