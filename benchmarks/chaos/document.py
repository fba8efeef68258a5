"""The chaos benchmark's document: what was killed, the findings, and the command to repeat it."""

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
    """The document as Markdown.

    Args:
        command: The command to repeat it.
        seed: Seed of the random kills.
        outcomes: Results of the random kills, one per backend.
        played: Results of the moments.
        asked: Number of moments to be tested.
        seconds: Wall-clock time of the moments.
        control: Results of the random kills without this package, as lines.
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

- **lost**: missing trials, runs, metric points and artifacts.
- **duplicates**: ends or commits recorded twice, more than one run per trial, more than one metric point per metric and step.
- **RUNNING**: runs that MLflow shows as running after the end.
- **wrong**: runs whose status or values differ from the study's ledger, and reports of an earlier state.
- **difference**: trials whose settings, end or learning curves, and rows of the final table, that are not bit for bit equal
  to those of the undisturbed sweep (except for time and memory).
- **touched**: runs of other studies in the same store that changed in any way (status, params, tags, metric points,
  artifacts) or were deleted.
- **refused**: starts after the loss that did not end with exit code 0, drivers that printed a traceback or "this is a bug",
  and drivers that kept running on a full disk.
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
        way = "a separate file system is full" if disks == {"disk full"} else "files are limited to 4 KB"
        full = f" A disk is full ({way}) until the driver has ended."
    return f"""## At the edges of a study's life

A small deterministic sweep (two arms, four trials) on this machine only; {len(played)} of {asked} moments tested, {kills} kills,
{seconds / 60:.0f} minutes. SIGKILL ends, in turn, its driver, or the driver and everything that it started. A fresh home's first
start is killed {len(first)} times, at equal intervals{spacing}; kills that left the same files on disk, byte for byte, share
one recovery.{full} Then one command, the one that a user would run, brings the study to its end. Every
store is compared with that of the same sweep undisturbed, and MLflow is audited run by run.

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
    control_lines = "\n".join(f"- {line}" for line in control) or "- not run"
    return f"""## At random moments

A deterministic sweep of two arms (task loss and online) runs on a cluster of a head and two nodes, with a separate MLflow
server. At random moments (seed {seed}) SIGKILL ends, in turn, its driver, the process of a running trial, a node with everything
that runs on it, or the MLflow server. Whatever a watchdog would restart is restarted: the driver's command, a new
node, the server. Then every store is compared with those of the same sweep undisturbed.

{_table(head, [_random_row(outcome) for outcome in outcomes])}

Killed: {killed}. **repeated passes**: training passes beyond those of the undisturbed sweep, counted by the base learner
itself; in brackets the number for one checkpoint interval of every running trial per kill.

The same scenario with Ray Tune, OptunaSearch and MLflowLoggerCallback alone (`benchmarks/chaos/control.py`):

{control_lines}
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
