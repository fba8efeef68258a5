"""The commands of `olfl loss`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.documents import print_json
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Address, Allow, Home, Json, LossSource, Moment, Storage, moment
from olfl_ray.cli.output import out

__all__ = ["loss_app"]

loss_app = typer.Typer(help="Export and explain learned losses.", no_args_is_help=True)


@loss_app.callback()
def _group() -> None:
    """Learned losses."""


@loss_app.command(
    "export",
    epilog=examples(
        "olfl loss export digits/online/c0 --standalone my_loss.py",
        "olfl loss export digits/online/c0 --standalone early.py --at 0.5",
    ),
)
def loss_export(
    source: LossSource,
    standalone: Annotated[Path, typer.Option(help="Python file to write, which needs torch alone.")],
    at: Moment = None,
    allow: Allow = None,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Write a learned loss as one Python file, with its origin and the range of its inputs in training."""
    from olfl_ray import study

    written = study.export_loss(
        source, standalone, at=moment(at), home=home, cluster=address, storage=storage, allow=allow or ()
    )
    if json:
        print_json({"source": source, "file": written})
    else:
        out.print(str(written), highlight=False, soft_wrap=True, markup=False)


@loss_app.command(
    "explain",
    epilog=examples(
        "olfl loss explain digits/online/c0",
        "olfl loss explain digits/online/c0 --out explained --as-arm formula.yaml",
    ),
)
def loss_explain(
    source: LossSource,
    at: Moment = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes; default: that of the trial's data set, or 2.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the animation, the pictures and the tables.")
    ] = None,
    as_arm: Annotated[
        Path | None, typer.Option(help="YAML file to write: the study's spec with the formula as one more arm.")
    ] = None,
    allow: Allow = None,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Describe a learned loss: the nearest known losses, a formula, where it is flat, improper or rewards errors."""
    from olfl_ray import study

    found = study.explain_loss(
        source, at=moment(at), classes=classes, home=home, cluster=address, storage=storage, allow=allow or ()
    )
    files = [] if folder is None else found.save(folder)
    if as_arm is not None:
        files.append(found.as_arm(as_arm))
    if json:
        print_json({**found.document(), "files": files})
        return
    for line in [str(found), *(str(file) for file in files)]:
        out.print(line, highlight=False, soft_wrap=True, markup=False)
