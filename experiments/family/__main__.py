"""`python -m experiments.family run ROW`: the family of learned losses at an equal number of base-learner passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.app import run_app
from olfl_ray.cli.options import Home, out
from olfl_ray.errors import INTERRUPTED

__all__ = ["app"]

HERE = Path(__file__).parent
app = typer.Typer(help="The family of learned losses at an equal number of base-learner passes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The benchmark of the family."""


@app.command("run")
def family_run(
    row: Annotated[str, typer.Argument(help="The benchmark: a file of the folder of rows.")],
    method: Annotated[list[str] | None, typer.Option(help="Only this method. May be repeated.")] = None,
    passes: Annotated[int | None, typer.Option(min=1, help="Passes of each search; default: the benchmark's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Fresh seeds; default: the benchmark's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the passes of each method; start no study.")
    ] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Folder of the benchmarks.")] = HERE / "rows",
    to: Annotated[Path, typer.Option("--out", help="Folder of the page.")] = HERE,
    home: Home = None,
) -> None:
    """Run or resume a benchmark, one study per method, and write its page."""
    from experiments import family
    from olfl_ray import study
    from olfl_ray.study.view import StudyView

    place = study.Home.find(home)
    plans = family.plan_of(row, folder, home=place, methods=method or (), passes=passes, seeds=seeds)
    for plan in plans:
        out.print(plan.line(), highlight=False, soft_wrap=True)
    if dry_run:
        return
    for plan in plans:
        one = study.Study.from_spec(plan.spec, home=place)
        if one.run(progress=StudyView(plan.spec, out)).stopped:
            raise typer.Exit(INTERRUPTED)
    if not method:
        page = family.write_page(row, family.read_family(row, folder), plans, place, to)
        out.print(f"page: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_app(app, "python -m experiments.family")
