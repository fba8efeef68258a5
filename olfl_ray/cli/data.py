"""The commands of `olfl data`."""

from __future__ import annotations

from typing import Annotated

import typer

from olfl_ray.cli.documents import print_json
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Home, Json, Sets
from olfl_ray.cli.output import out

__all__ = ["data_app"]

data_app = typer.Typer(help="List, prepare and check data sets.", no_args_is_help=True)


@data_app.command("list", epilog=examples("olfl data list"))
def data_list(json: Json = False) -> None:
    """List the built-in data sets."""
    from rich.table import Column, Table

    from olfl_ray import study
    from olfl_ray.study.view import LOOK

    if json:
        names = ("name", "kind", "examples", "shape", "where")
        print_json([dict(zip(names, row, strict=True)) for row in study.describe_data()])
        return
    rows = study.describe_data()
    name = Column("name", min_width=max(len(row[0]) for row in rows))
    table = Table(name, "kind", "examples", "shape", "where", **LOOK)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out.print(table)


@data_app.command("prepare", epilog=examples("olfl data prepare mnist"))
def data_prepare(
    name: Annotated[str, typer.Argument(help="Name of the data set.")], json: Json = False, home: Home = None
) -> None:
    """Find, check and prepare a data set."""
    from olfl_ray import study

    if json:
        print_json({"name": name, "prepared": study.prepare_data(name, home=study.Home.find(home))})
        return
    out.print(study.prepare_data(name, home=study.Home.find(home)), highlight=False, soft_wrap=True)


@data_app.command(
    "check",
    epilog=examples(
        "olfl data check sweeps/digits.yaml", "olfl data check csv:wine.csv --set task.dataset.target=quality"
    ),
)
def data_check(
    target: Annotated[
        str, typer.Argument(help="A spec (.yaml), or a data set: a built-in name, csv:FILE, package.module:builder.")
    ],
    set_: Sets = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Show examples, classes, splits, missing values, duplicates and the best constant prediction of a data set."""
    from olfl_ray import study

    found = study.check_dataset(target, overrides=set_ or (), home=study.Home.find(home))
    if json:
        print_json(found)
        return
    for summary in found:
        out.print(str(summary), highlight=False, soft_wrap=True, markup=False)
