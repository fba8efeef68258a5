"""`python -m experiments.sparsity planted`, `digits`: learned sparsity against fixed strengths."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.app import run_app
from olfl_ray.cli.options import Home, out

__all__ = ["app"]

HERE = Path(__file__).parent
app = typer.Typer(help="Learned sparsity against fixed strengths.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The benchmark of sparsity."""


@app.command("planted")
def planted(
    seeds: Annotated[int, typer.Option(min=2, help="Number of problems.")] = 10,
    to: Annotated[Path, typer.Option("--out", help="Folder of the page.")] = HERE,
) -> None:
    """Recover a planted support that several regressions share; minutes on one core."""
    import torch

    from experiments.sparsity.document import write_planted
    from experiments.sparsity.planted import NETWORKS, run_seed

    torch.set_num_threads(1)
    began = time.perf_counter()
    results = {}
    for name in NETWORKS:
        results[name] = [run_seed(name, seed) for seed in range(seeds)]
        out.print(f"{name}: {time.perf_counter() - began:.0f} s", highlight=False)
    page = write_planted(results, time.perf_counter() - began, to)
    out.print(f"page: {page}", highlight=False, soft_wrap=True)


@app.command("digits")
def digits(
    study: Annotated[str, typer.Argument(help="The finished study.")] = "meta_sparsity_digits",
    to: Annotated[Path, typer.Option("--out", help="Folder of the page.")] = HERE,
    home: Home = None,
) -> None:
    """Prune and time a finished study's networks, and fine-tune them on the task that they did not see."""
    import torch

    from experiments.sparsity.digits import confirmed_of
    from experiments.sparsity.digits_page import write_digits
    from olfl_ray import study as studies

    torch.set_num_threads(1)
    place = studies.Home.find(home)
    opened = studies.Study.open(study, home=place)
    page = write_digits(opened, *confirmed_of(opened, place), to)
    out.print(f"page: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_app(app, "python -m experiments.sparsity")
