"""`python -m experiments.dosa run NAME`: run a sweep of DOSA's arms and write its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.app import run_app
from olfl_ray.cli.options import Home, out
from olfl_ray.errors import INTERRUPTED, SpecError

__all__ = ["app"]

HERE = Path(__file__).parent
SWEEPS = HERE.parents[1] / "sweeps"
app = typer.Typer(help="DOSA's margin losses, and labels that arrive in blocks.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The benchmarks of DOSA."""


@app.command("run")
def dosa_run(
    name: Annotated[str, typer.Argument(help="A sweep: a file sweeps/dosa_*.yaml or experiments/dosa/*.yaml.")],
    to: Annotated[Path, typer.Option("--out", help="Folder of the page.")] = HERE,
    home: Home = None,
) -> None:
    """Run or resume a sweep, and write its page."""
    from experiments import dosa
    from olfl_ray import study
    from olfl_ray.study.view import StudyView

    files = {path.stem: path for path in (*SWEEPS.glob("dosa_*.yaml"), *HERE.glob("*.yaml"))}
    if name not in files:
        raise SpecError("NAME", f"there is no sweep {name!r}; there are: {', '.join(sorted(files))}")
    place = study.Home.find(home)
    one = study.Study.from_yaml(files[name], home=place)
    if one.run(progress=StudyView(one.spec, out)).stopped:
        raise typer.Exit(INTERRUPTED)
    out.print(f"page: {dosa.write_page(one.spec.name, place, to)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_app(app, "python -m experiments.dosa")
