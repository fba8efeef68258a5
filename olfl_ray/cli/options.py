"""Options that several commands take, and where they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.examples import study_names
from olfl_ray.cli.output import out

__all__ = [
    "Address",
    "Cluster",
    "Follow",
    "Home",
    "Json",
    "Name",
    "PyModules",
    "Sets",
    "SpecFile",
    "Storage",
    "WorkingDir",
    "out",
]

Name = Annotated[str, typer.Argument(help="Name of the study.", autocompletion=study_names)]
SpecFile = Annotated[Path, typer.Argument(help="The study's spec, a YAML file.")]
Home = Annotated[Path | None, typer.Option("--home", help="Home folder; default: OLFL_HOME, else ./.olfl.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=c. May be repeated.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="URL of Ray's job server, or a target of the settings file; default: this machine."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--address", help="URL of Ray's job server, or a target; default: RAY_ADDRESS, else the settings file's."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Storage of the study, such as s3://bucket/studies; no other place is searched."),
]
WorkingDir = Annotated[
    Path | None, typer.Option("--working-dir", help="Folder to upload: the driver and trials run in it.")
]
PyModules = Annotated[
    list[Path] | None, typer.Option("--py-module", help="A package of your own to upload. May be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on standard output.")]
Follow = Annotated[
    bool, typer.Option("--follow", help="Show progress until the driver ends; Ctrl-C leaves it running.")
]
