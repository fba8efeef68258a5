"""`python -m benchmarks ...`: benchmarks and robustness tests, each of which writes a document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olfl_ray.cli.app import run_app
from olfl_ray.cli.options import out

__all__ = ["app"]

app = typer.Typer(help="Benchmarks and robustness tests, each with a document.", no_args_is_help=True)


@app.command("chaos")
def chaos(
    kills: Annotated[int, typer.Option(min=0, help="Number of random kills for each MLflow backend; 0: none.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the random kills.")] = 0,
    steps: Annotated[int, typer.Option(help="Base steps of a trial under random kills.")] = 1500,
    control: Annotated[
        bool,
        typer.Option(help="Also run the random kills with Ray Tune, OptunaSearch and MLflowLoggerCallback alone."),
    ] = True,
    evolution: Annotated[
        bool, typer.Option("--evolution", help="The random kills hit a search by evolution (EvoMAL).")
    ] = False,
    edges: Annotated[bool, typer.Option(help="Also kill at the transitions of a study's life.")] = True,
    first: Annotated[
        float, typer.Option(help="Duration of a home's first start in which it is killed, in seconds.")
    ] = 6.0,
    spacing: Annotated[float, typer.Option(min=0.01, help="Seconds between two kills of a first start.")] = 0.1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the transitions whose `FAMILY: NAME` starts with this. May be repeated."),
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, help="Number of transitions tested in parallel.")] = 2,
    document: Annotated[Path, typer.Option(help="Path of the document.")] = Path("benchmarks/chaos/RESULT.md"),
) -> None:
    """Kill sweeps at each transition of a study's life and at random, and compare them with undisturbed ones (needs PostgreSQL)."""
    from benchmarks.chaos.run import bench_chaos

    def say(text: str) -> None:
        out.print(text, highlight=False, soft_wrap=True, markup=False)

    broken = bench_chaos(
        document,
        kills=kills,
        seed=seed,
        steps=steps,
        control=control,
        evolution=evolution,
        edges=edges,
        first=first,
        spacing=spacing,
        only=only or (),
        lanes=lanes,
        say=say,
    )
    for line in broken:
        say(f"NOT AS PROMISED: {line}")
    if broken:
        raise typer.Exit(1)


@app.command("engine")
def engine(
    quick: Annotated[bool, typer.Option("--quick", help="Small batches, few rounds.")] = False,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the documents.")] = Path("benchmarks/engine"),
    network: Annotated[list[str] | None, typer.Option(help="Only this network. May be repeated.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Batch size.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a step; default: torch's own number.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Time the online step against a plain step, higher, TorchOpt and Betty."""
    from benchmarks.engine.contestants import NETWORKS
    from benchmarks.engine.timing import bench_engine

    document = bench_engine(
        folder,
        quick=quick,
        networks=network or tuple(NETWORKS),
        rows=rows,
        threads=threads,
        device=device,
        say=lambda text: out.print(text, highlight=False, soft_wrap=True),
    )
    out.print(f"document: {document}", highlight=False, soft_wrap=True)


@app.command("sweep")
def sweep(
    quick: Annotated[bool, typer.Option("--quick", help="Few trials, small studies.")] = False,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the documents.")] = Path("benchmarks/sweep"),
    rounds: Annotated[int, typer.Option(min=1, help="Number of runs of each sweep; contestants take turns.")] = 1,
) -> None:
    """Time a study of sleeping trials against plain Ray Tune, and a driver as its study grows (a quarter of an hour)."""
    from benchmarks.sweep.timing import bench_sweep

    document = bench_sweep(
        folder, quick=quick, rounds=rounds, say=lambda text: out.print(text, highlight=False, soft_wrap=True)
    )
    out.print(f"document: {document}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_app(app, "python -m benchmarks")
