"""The full chaos benchmark: each edge of a study's life, then random moments; its document is written after each part."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.control import control as run_control
from benchmarks.chaos.document import document as write
from benchmarks.chaos.edges import Played, play_all
from benchmarks.chaos.moments import moments
from benchmarks.chaos.randomly import Outcome, chaos
from benchmarks.chaos.scene import BACKENDS
from olfl_ray.errors import SetupError
from olfl_ray.storage import LocalStorage, writable_folder

__all__ = ["bench_chaos"]


def bench_chaos(
    document: Path,
    *,
    kills: int,
    seed: int,
    steps: int,
    control: bool,
    edges: bool,
    first: float,
    spacing: float,
    only: Sequence[str],
    lanes: int,
    say: Callable[[str], None],
) -> list[str]:
    """Kill sweeps, compare them with some left in peace, and write what was found.

    Args:
        document: Where it is written.
        kills: Random kills for each store behind MLflow.
        seed: Decides what is killed when.
        steps: Base steps of a trial under random kills.
        control: Whether the random kills are also run with Ray Tune, OptunaSearch and MLflowLoggerCallback alone.
        edges: Whether sweeps are killed at the edges of a study's life, too.
        first: Seconds of a home's first start that are killed.
        spacing: Seconds between two of those kills.
        only: Of the edges, those whose `FAMILY: NAME` begins so; empty: all.
        lanes: Edges that are played at a time.
        say: Told of what goes on.

    Returns:
        A line for each part that did not hold.

    Raises:
        SetupError: The document can't be written, or PostgreSQL is not installed.
    """
    document = writable_folder(document.parent, "--document") / document.name
    if document.is_dir():
        raise SetupError(f"--document: {document} is a folder; name a file in it")
    command = f"python -m benchmarks chaos --kills {kills} --seed {seed} --steps {steps}" + (
        "" if control else " --no-control"
    )
    command += f" --first {first:g} --spacing {spacing:g}" if edges else " --no-edges"
    command += "".join(f" --only {shlex.quote(one)}" for one in only)
    outcomes: list[Outcome] = []
    beside: list[str] = []
    played: list[Played] = []
    with tempfile.TemporaryDirectory(prefix="olfl-chaos-", ignore_cleanup_errors=True) as scratch:
        folder, began = Path(scratch), time.monotonic()

        def note(so_far: Sequence[Played], seconds: float) -> None:
            found = write(
                command=command,
                seed=seed,
                outcomes=outcomes,
                played=so_far,
                asked=len(wanted),
                seconds=seconds,
                control=beside,
            )
            LocalStorage(document.parent).write(document.name, found.encode())

        every = moments(seconds=first, spacing=spacing, stores=BACKENDS) if edges else []
        wanted = [one for one in every if f"{one.family}: {one.name}".startswith(tuple(only) or "")]
        if wanted:
            played = play_all(
                folder / "edges",
                wanted,
                lanes=lanes,
                say=say,
                note=lambda so_far: note(so_far, time.monotonic() - began),
            )
        took = time.monotonic() - began
        for backend in BACKENDS if kills else ():
            scene: dict[str, Any] = {"kills": kills, "seed": seed, "backend": backend, "steps": steps, "say": say}
            outcomes.append(chaos(folder / f"random-{backend}", **scene))
            say(f"{backend}: {outcomes[-1].line()}")
            if control:
                beside.append(f"{backend}: {run_control(folder / f'control-{backend}', **scene).line()}")
                say(f"control, {beside[-1]}")
            note(played, took)
    say(f"document: {document}")
    random = [f"random kills, {one.backend}: {one.line()}" for one in outcomes if not one.holds]
    return [*(one.line() for one in played if not one.holds), *random]
