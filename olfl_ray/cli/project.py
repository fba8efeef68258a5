"""`olfl init`: the first files of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.documents import print_json
from olfl_ray.cli.options import Json
from olfl_ray.cli.output import out

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; created if it does not exist.")],
    name: Annotated[str | None, typer.Option(help="Name of the study; default: the folder's name.")] = None,
    json: Json = False,
) -> None:
    """Write your own study: a spec, a module with its data set and base learner, and a test. Overwrites nothing."""
    from olfl_ray import study

    files = study.write_project(folder, name)
    if json:
        print_json({"files": list(files)})
        return
    for file in files:
        out.print(f"wrote {file}", highlight=False, soft_wrap=True, markup=False)
    out.print("next, in that folder:")
    for line in (
        "pytest                                              # checks the parts in seconds",
        "PYTHONPATH=. olfl sweep run study.yaml --dry-run    # checks the spec, starts nothing",
        "PYTHONPATH=. olfl sweep run study.yaml",
    ):
        out.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
