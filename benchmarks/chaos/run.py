"""The full chaos benchmark: each transition of a study's life, then random moments; the document is written after each part."""

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
    evolution: bool,
    edges: bool,
    first: float,
    spacing: float,
    only: Sequence[str],
    lanes: int,
    say: Callable[[str], None],
) -> list[str]:
    """Kill sweeps, compare them with undisturbed ones, and write the findings.

    Args:
        document: Path of the document.
        kills: Number of random kills for each MLflow backend.
        seed: Seed of the random kills.
        steps: Base steps of a trial under random kills.
        control: Whether the random kills are also run with Ray Tune, OptunaSearch and MLflowLoggerCallback alone.
        evolution: Whether the random kills hit a search by evolution.
        edges: Whether sweeps are also killed at the transitions of a study's life.
        first: Duration of a home's first start in which it is killed, in seconds.
        spacing: Seconds between two of those kills.
        only: Only the transitions whose `FAMILY: NAME` starts with one of these; empty: all.
        lanes: Number of transitions tested in parallel.
        say: Called with progress messages.

    Returns:
        A line for each violation.

    Raises:
        SetupError: The document can't be written, or PostgreSQL is not installed.
    """
    document = writable_folder(document.parent, "--document") / document.name
    if document.is_dir():
        raise SetupError(f"--document: {document} is a folder; name a file in it")
    command = f"python -m benchmarks chaos --kills {kills} --seed {seed} --steps {steps}" + (
        "" if control else " --no-control"
    )
    command += " --evolution" if evolution else ""
    command += f" --first {first:g} --spacing {spacing:g}" if edges else " --no-edges"
    command += "".join(f" --only {shlex.quote(one)}" for one in only)
    outcomes: list[Outcome] = []
    control_lines: list[str] = []
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
                control=control_lines,
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
            outcomes.append(chaos(folder / f"random-{backend}", evolution=evolution, **scene))
            say(f"{backend}: {outcomes[-1].line()}")
            if control:
                control_lines.append(f"{backend}: {run_control(folder / f'control-{backend}', **scene).line()}")
                say(f"control, {control_lines[-1]}")
            note(played, took)
    say(f"document: {document}")
    random = [f"random kills, {one.backend}: {one.line()}" for one in outcomes if not one.holds]
    return [*(one.line() for one in played if not one.holds), *random]
