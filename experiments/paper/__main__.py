"""`python -m experiments.paper ...`: the paper's claim, benchmark by benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from olfl_ray.cli.app import run_app
from olfl_ray.cli.options import Home, Sets, out
from olfl_ray.errors import INTERRUPTED

__all__ = ["app"]

HERE = Path(__file__).parent
app = typer.Typer(help="The paper's claim: online beats offline beats the task loss?", no_args_is_help=True)
Folder = Annotated[Path, typer.Option("--folder", help="Folder of the benchmarks.")]
FOLDER = HERE / "rows"


@app.command("run")
def paper_run(
    rows: Annotated[list[str] | None, typer.Argument(help="Benchmarks; default: all.", metavar="[ROW]...")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Fresh seeds on which each method is reported.")] = 10,
    scale: Annotated[Literal["full", "short"], typer.Option(help="short: fewer steps, for CPUs.")] = "full",
    settings: Annotated[
        Literal["fixed", "tuned", "both"], typer.Option(help="The recipe's, or those of an equal search a method.")
    ] = "both",
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every method; start nothing.")] = False,
    home: Home = None,
    folder: Folder = FOLDER,
) -> None:
    """Run or resume benchmarks; each is one study at fixed and one at tuned settings."""
    from experiments import paper
    from olfl_ray import study
    from olfl_ray.study.view import StudyView, final_view

    specs = [
        paper.study_of(row, folder=folder, settings=kind, scale=scale, seeds=seeds, overrides=set_ or ())
        for row in rows or paper.read_cards(folder)
        for kind in (("fixed", "tuned") if settings == "both" else (settings,))
    ]
    place = study.Home.find(home)
    if dry_run:
        for spec in specs:
            study.Study.from_spec(spec, home=place).plan()
            trials = sum(arm.trials + seeds for arm in spec.arms.values())
            out.print(f"{spec.name}: {trials} trials of {len(spec.arms)} methods, {spec.learner.steps} base steps")
        return
    for spec in specs:
        out.print(f"study {spec.name} in {place.study_folder(spec.name)}", highlight=False, soft_wrap=True)
        with StudyView(spec, out) as view:
            result = paper.run_row(spec, home=place, watch=view.watch)
        out.print(final_view(result.arms))
        if result.stopped:
            raise typer.Exit(INTERRUPTED)
    out.print("the document: python -m experiments.paper table", highlight=False)


@app.command("table")
def paper_table(
    out_: Annotated[Path, typer.Option("--out", help="Folder of the document, its pictures and results.")] = HERE,
    summary: Annotated[Path, typer.Option(help="File of the summary.")] = HERE.parents[1] / "docs" / "paper.md",
    home: Home = None,
    folder: Folder = FOLDER,
) -> None:
    """Write the document from the benchmarks that were run here, and from the results that it has already."""
    from experiments import paper
    from olfl_ray import study

    page = paper.write_table(out_, summary, folder=folder, home=study.Home.find(home))
    out.print(f"document: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_app(app, "python -m experiments.paper")
