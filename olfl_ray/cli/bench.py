"""`olfl bench ...`: benchmarks and proofs, each of which writes a document."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from olfl_ray.cli.options import out

__all__ = ["bench_app"]

bench_app = typer.Typer(help="Benchmarks and proofs, each with a document.", no_args_is_help=True)


@bench_app.command("chaos")
def chaos(
    kills: Annotated[int, typer.Option(help="Kills for each store behind MLflow.")] = 24,
    seed: Annotated[int, typer.Option(help="Decides what is killed when.")] = 0,
    steps: Annotated[int, typer.Option(help="Base steps of a trial.")] = 2000,
    control: Annotated[
        bool,
        typer.Option(help="Also run the same scenario with Ray Tune, OptunaSearch and MLflowLoggerCallback alone."),
    ] = True,
    document: Annotated[Path, typer.Option(help="Where the document is written.")] = Path("benchmarks/chaos/RESULT.md"),
) -> None:
    """Kill a sweep's driver, workers, nodes and MLflow server at random, and compare it with one left in peace."""
    from olfl_ray.bench.chaos import BACKENDS
    from olfl_ray.bench.chaos import chaos as run_chaos
    from olfl_ray.bench.chaos_document import document as write
    from olfl_ray.bench.control import control as run_control
    from olfl_ray.errors import SetupError
    from olfl_ray.storage import LocalStorage, writable_folder

    document = writable_folder(document.parent, "--document") / document.name
    if document.is_dir():
        raise SetupError(f"--document: {document} is a folder; name a file in it")

    def say(text: str) -> None:
        out.print(text, highlight=False)

    outcomes, beside = [], []
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory(prefix="olfl-chaos-", ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch)
            scene: dict[str, Any] = {"kills": kills, "seed": seed, "backend": backend, "steps": steps, "say": say}
            outcome = run_chaos(folder / "olfl", **scene)
            outcomes.append(outcome)
            out.print(f"{backend}: {outcome.line()}", highlight=False, soft_wrap=True)
            if control:
                beside.append(f"{backend}: {run_control(folder / 'control', **scene).line()}")
                out.print(f"control, {beside[-1]}", highlight=False, soft_wrap=True)
    command = f"olfl bench chaos --kills {kills} --seed {seed} --steps {steps}"
    content = write(outcomes, command=command, seed=seed, control=beside)
    LocalStorage(document.parent).write(document.name, content.encode())
    out.print(f"document: {document}", highlight=False, soft_wrap=True)
    for outcome in outcomes:
        out.print(f"{outcome.backend}: {outcome.line()}", highlight=False, soft_wrap=True)
    if not all(outcome.holds for outcome in outcomes):
        raise typer.Exit(1)


@bench_app.command("engine")
def engine(
    quick: Annotated[bool, typer.Option("--quick", help="Small batches, few rounds.")] = False,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the documents.")] = Path("benchmarks/engine"),
    network: Annotated[list[str] | None, typer.Option(help="Only this one. May be repeated.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Batch size.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a step; else torch's own number.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Time the online step against a plain step, higher, TorchOpt and Betty."""
    from olfl_ray.bench.contestants import NETWORKS
    from olfl_ray.bench.engine import bench_engine

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


@bench_app.command("sweep")
def sweep(
    quick: Annotated[bool, typer.Option("--quick", help="Few trials, small studies.")] = False,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the documents.")] = Path("benchmarks/sweep"),
    rounds: Annotated[int, typer.Option(min=1, help="How often each sweep is run; contestants take turns.")] = 1,
) -> None:
    """Time a study of sleeping trials against plain Ray Tune, and a driver as its study grows (a quarter of an hour)."""
    from olfl_ray.bench.sweep import bench_sweep

    document = bench_sweep(
        folder, quick=quick, rounds=rounds, say=lambda text: out.print(text, highlight=False, soft_wrap=True)
    )
    out.print(f"document: {document}", highlight=False, soft_wrap=True)
