"""`olfl sweep transfer`: a study's learned losses on other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from olfl_ray.cli.documents import plan_document, print_json, transfer_document
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Home, Json, Name, Sets, out
from olfl_ray.cli.outcome import leave, notes_on, print_failures
from olfl_ray.cli.output import errors, option, outliving
from olfl_ray.terminal import Terminal

__all__ = ["add_transfer"]

WIDTH = 116
"""Least width of the table, in characters: no cell is broken."""


def add_transfer(app: typer.Typer) -> None:
    """Add the command to `olfl sweep`."""
    epilog = examples(
        "olfl sweep transfer evomal_digits --to sweeps/digits.yaml --out map.png",
        "olfl sweep transfer digits --to a.yaml --to b.yaml --loss online/c0 --dry-run",
    )
    app.command("transfer", epilog=epilog)(sweep_transfer)


def sweep_transfer(
    study: Name,
    to: Annotated[list[Path], typer.Option("--to", help="Spec of a task, a YAML file. May be repeated.")],
    loss: Annotated[
        list[str] | None,
        typer.Option("--loss", help="ARM/ORDINAL of a loss; default: each arm's winner. May be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Start of the studies' names, NAME-to-TASK; default: STUDY.")] = None,
    set_: Sets = None,
    picture: Annotated[
        Path | None, typer.Option("--out", help="Heat map to write: .png, .svg, .pdf, or .html with the table.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the studies and print their plans; start nothing.")
    ] = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Train on a study's learned losses, frozen, in other tasks, and compare them with the task loss; or resume that."""
    from olfl_ray.study import Study
    from olfl_ray.study.transfer import check_picture
    from olfl_ray.study.view import StudyView

    if picture is not None:
        check_picture(picture)
    found = Study.open(study, home=home).transfer(to, trials=loss, overrides=set_ or (), name=name)
    if dry_run:
        plans = found.plan()
        if json:
            print_json([plan_document(plan) for plan in plans.values()])
        else:
            out.print("\n\n".join(map(str, plans.values())), highlight=False, soft_wrap=True, markup=False)
        return
    found.check()
    results: list[Any] = []
    for one in found.studies.values():
        with outliving(one.name, option("--home", one.home.path)):
            head = (f"study {one.name} in {one.home.study_folder(one.name)}", *notes_on(one.spec))
            results.append(one.run(progress=StudyView(one.spec, errors if json else out, head)))
            if results[-1].stopped:
                break
    files = [] if picture is None or results[-1].stopped else [found.save(picture)]
    if json:
        print_json({**transfer_document(found), "files": files})
    else:
        _print(found)
        for line in [*(f"report: {result.report}" for result in results), *map(str, files)]:
            out.print(line, highlight=False, soft_wrap=True, markup=False)
        for result in results:
            print_failures(result.state, option("--home", one.home.path))
    for result in results:
        leave(result)


def _print(found: Any) -> None:
    """A table for each task."""
    from rich.table import Table

    from olfl_ray.analysis import number
    from olfl_ray.analysis.transfer import CONTROLS
    from olfl_ray.study.comparison import spread
    from olfl_ray.study.view import LOOK

    cells = found.cells
    for target in dict.fromkeys(cell.target for cell in cells):
        mine = [cell for cell in cells if cell.target == target]
        table = Table("loss", title=f"{target}: {mine[0].metric}, losses of {found.source}", **LOOK)
        compared = (head for words in CONTROLS.values() for head in (f"minus {words} [95 % CI]", "Holm"))
        for column in ("mean ± sd", "n", *compared):
            table.add_column(column, justify="right")
        for control, words in CONTROLS.items():
            if control in mine[0].levels:
                table.add_row(words, number(mine[0].levels[control]))
        for cell in mine:
            own = spread(cell.values)
            shown = "" if not own["n"] else number(own["mean"]) + (f" ± {number(own['sd'])}" if own["n"] > 1 else "")
            differences: list[str] = []
            for control in CONTROLS:
                d = cell.against.get(control)
                interval = "" if d is None else f"{number(d.mean, '+')} [{number(d.low, '+')}, {number(d.high, '+')}]"
                differences += [interval, "" if d is None else f"{cell.holm[control]:.3f}"]
            table.add_row(cell.loss, shown, str(own["n"]), *differences)
        Terminal(file=out.file, width=max(out.width, WIDTH)).print(table)
