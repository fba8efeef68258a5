"""Options that several commands take, and where they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.examples import study_names
from olfl_ray.cli.output import out
from olfl_ray.errors import SpecError

__all__ = [
    "Address",
    "Allow",
    "Cluster",
    "Follow",
    "Home",
    "Json",
    "LossSource",
    "Moment",
    "Name",
    "NewName",
    "PyModules",
    "Sets",
    "SpecFile",
    "Storage",
    "TrialName",
    "WorkingDir",
    "moment",
    "out",
]

Name = Annotated[str, typer.Argument(help="Name of the study.", autocompletion=study_names)]
NewName = Annotated[str | None, typer.Option("--name", help="Name of the study; default: the spec's.")]
TrialName = Annotated[str, typer.Argument(metavar="STUDY/ARM/ORDINAL", help="A trial.")]
LossSource = Annotated[
    str, typer.Argument(help="STUDY/ARM/ORDINAL, a file or folder of a learned loss, or an MLflow run.")
]
Moment = Annotated[
    str | None,
    typer.Option("--at", help="Time: a fraction of the training (0.5) or a base step (200); default: the last step."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", help="A builder, module or package that may be called. May be repeated."),
]
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


def moment(text: str | None) -> float | None:
    """The value of `--at`: a base step as an integer, else a fraction.

    Raises:
        SpecError: It is neither.
    """
    if text is None:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise SpecError("--at", f"is {text!r}, but must be a fraction such as 0.5 or a base step such as 200") from None
