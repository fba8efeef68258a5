"""`olfl trial export`: a trial's trained model as one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.documents import print_json
from olfl_ray.cli.options import Address, Allow, Home, Json, Storage
from olfl_ray.cli.output import out
from olfl_ray.errors import StudyError

__all__ = ["export"]


def export(
    source: Annotated[
        str, typer.Argument(help="STUDY/ARM/cN, a finished trial; c0, c1, ... are the winner's confirming trials.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="safetensors, pt2 (torch.export) or onnx; default: from the suffix of --to, else safetensors (--pruned: pt2)."
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="File to write; default: STUDY-ARM-cN.FORMAT in this folder.")] = None,
    replicate: Annotated[
        int, typer.Option(help="Replicate whose model is written, from 0; a confirming trial has one.")
    ] = 0,
    pruned: Annotated[
        bool,
        typer.Option(
            "--pruned",
            help="Leave out the channels that its weights ignore; prints how much faster that makes it here.",
        ),
    ] = False,
    allow: Allow = None,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Write the base learner that a trial trained to one file, with its input scaler and classes."""
    from olfl_ray.study import Study

    name, _, trial = source.partition("/")
    if source.count("/") != 2:
        raise StudyError(f"source: is {source!r}, but must be STUDY/ARM/cN; name a trial such as digits/online/c0")
    study = Study.open(name, home=home, cluster=address, storage=storage, allow=allow or ())
    written = study.export(trial, to, format=format, replicate=replicate, pruned=pruned)
    compared = study.speed(trial, replicate=replicate) if pruned else None
    if json:
        print_json({"source": source, "file": written, "pruned": None if compared is None else asdict(compared)})
    else:
        out.print(str(written), highlight=False, soft_wrap=True, markup=False)
        if compared:
            out.print(str(compared), highlight=False, soft_wrap=True, markup=False)
