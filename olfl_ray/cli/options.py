"""Options that several commands take, and where they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["Home", "Sets", "out"]

Home = Annotated[Path | None, typer.Option("--home", help="Home folder; else OLFL_HOME, else ./.olfl.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=c. May be repeated.")]
out = Console()
