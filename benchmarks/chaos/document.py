"""The chaos benchmark's document: what was killed, what was found, and the command that found it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.chaos.edges import Played
from benchmarks.chaos.moments import FIRST
from benchmarks.chaos.randomly import Outcome

__all__ = ["document"]

LIBRARIES = ("olfl_ray", "ray", "optuna", "mlflow", "torch")
FIGURES = ("runs", "points", "lost", "duplicates", "running", "wrong", "difference")


def document(
    *,
    command: str,
    seed: int,
    outcomes: Sequence[Outcome] = (),
    played: Sequence[Played] = (),
    asked: int = 0,
    seconds: float = 0.0,
    control: Sequence[str] = (),
) -> str:
    """Markdown.

    Args:
        command: What to run again.
        seed: Seed of the random kills.
        outcomes: What the random kills came to, one a backend.
        played: What the moments came to.
        asked: How many moments were to be played.
        seconds: Wall-clock time of the moments.
        control: Lines of the random kills without this package.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    parts = [
        f"""# Chaos

{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}, Python
{platform.python_version()}; {versions}.

    {command}
""",
        _edges(played, asked, seconds) if played else "## At the edges of a study's life\n\nNot run.\n",
        _random(outcomes, seed, control) if outcomes else "## At random moments\n\nNot run.\n",
        """## What is counted

- **lost**: trials, runs, metric points and artifacts that are not there.
- **duplicates**: ends or commits noted twice, runs beyond one a trial, metric points beyond one for each metric and step.
- **RUNNING**: runs that MLflow shows as running after the end.
- **wrong**: runs whose status or values are not those of the study's ledger, and reports of an earlier state.
- **difference**: trials whose settings, end or learning curves, and rows of the final table, that are not bit for bit
  those of the undisturbed sweep (time and memory aside).
- **touched**: runs of other studies in the same store of which anything changed (status, params, tags, metric points,
  artifacts) or that were deleted.
- **refused**: starts after the loss that did not end with exit code 0, drivers that said a traceback or "this is a bug",
  and drivers that still ran on a full disk.
""",
    ]
    return "\n".join(parts)


def _edges(played: Sequence[Played], asked: int, seconds: float) -> str:
    kills = sum(one.moment.harm in ("driver", "machine") for one in played)
    disks = {one.phase for one in played if one.moment.harm == "disk"}
    groups: dict[tuple[str, str], list[Played]] = {}
    for one in played:
        name = one.phase if one.moment.family == FIRST else one.moment.name
        groups.setdefault((one.moment.family, name), []).append(one)
    first = [one for one in played if one.moment.family == FIRST]
    spacing = f", the last after {first[-1].moment.name}" if first else ""
    rows = [_edge_row(family, name, group) for (family, name), group in groups.items()]
    rows.append(_edge_row("**all**", "", played))
    head = (
        "moment",
        "",
        "kills",
        "full disks",
        "recoveries",
        *FIGURES[:4],
        "RUNNING",
        *FIGURES[5:],
        "touched",
        "refused",
    )
    full = ""
    if disks:
        way = "a file system of its own is full" if disks == {"disk full"} else "files may grow to 4 KB only"
        full = f" A disk is full ({way}) until the driver has ended."
    return f"""## At the edges of a study's life

A small deterministic sweep (two arms, four trials) on this machine alone; {len(played)} of {asked} moments played, {kills} kills,
{seconds / 60:.0f} minutes. SIGKILL ends, by turns, its driver, or the driver and all that it started. A fresh home's first start
is killed {len(first)} times, at even distances{spacing}; kills that left the same files on disk, byte for byte, share
one recovery.{full} Then one command, the one a user would give, brings the study to its end. Every
store is compared with that of the same sweep left in peace, and MLflow is audited run by run.

{_table(head, rows)}
"""


def _edge_row(family: str, name: str, group: Sequence[Played]) -> tuple[str, ...]:
    kills = sum(one.moment.harm in ("driver", "machine") for one in group)
    disks = sum(one.moment.harm == "disk" for one in group)
    figures = [sum(one.total(figure) for one in group) for figure in FIGURES]
    touched, problems = sum(one.touched for one in group), sum(len(one.problems) for one in group)
    numbers = (kills, disks, sum(not one.like for one in group), *figures, touched, problems)
    return (family, name, *map(str, numbers))


def _random(outcomes: Sequence[Outcome], seed: int, control: Sequence[str]) -> str:
    first = ("behind MLflow", "kills", "driver starts", "trials", "commits", "repeated passes", *FIGURES[:4])
    head = (*first, "RUNNING", *FIGURES[5:], "seconds")
    killed = "; ".join(
        f"{outcome.backend}: " + ", ".join(f"{count} {kind}" for kind, count in outcome.kills.items())
        for outcome in outcomes
    )
    beside = "\n".join(f"- {line}" for line in control) or "- not run"
    return f"""## At random moments

A deterministic sweep of two arms (task loss and online) runs on a cluster of a head and two nodes, with an MLflow server
next to it. At random moments (seed {seed}) SIGKILL ends, by turns, its driver, the process of a running trial, a node with all
that runs on it, or the MLflow server. Whatever a watchdog would start again is started again: the driver's command, a new
node, the server. Then every store is compared with those of the same sweep left in peace.

{_table(head, [_random_row(outcome) for outcome in outcomes])}

Killed: {killed}. **repeated passes**: training passes beyond those of the undisturbed sweep, counted by the base learner
itself; in brackets what one checkpoint interval of every running trial a kill would come to.

The same scenario with Ray Tune, OptunaSearch and MLflowLoggerCallback alone (`benchmarks/chaos/control.py`):

{beside}
"""


def _random_row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.backend,
        str(sum(outcome.kills.values())),
        str(outcome.starts),
        str(outcome.found.trials),
        str(outcome.found.commits),
        f"{outcome.repeated} of {outcome.passes} ({outcome.allowed})",
        *(str(getattr(outcome.found, figure)) for figure in FIGURES),
        f"{outcome.seconds:.0f}",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows))
