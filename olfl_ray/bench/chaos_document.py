"""The chaos benchmark's document: what was killed, what was found, and the command that found it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from olfl_ray.bench.chaos import Outcome

__all__ = ["document"]

LIBRARIES = ("olfl_ray", "ray", "optuna", "mlflow", "torch")


def document(outcomes: Sequence[Outcome], *, command: str, seed: int, control: Sequence[str] = ()) -> str:
    """Markdown.

    Args:
        outcomes: What was found, one a backend.
        command: What to run again.
        seed: Seed of the kills.
        control: Lines of the same scenario without this package.
    """
    first = ("behind MLflow", "kills", "driver starts", "trials", "commits", "repeated passes", "runs")
    head = (*first, "duplicates", "lost", "RUNNING", "difference", "seconds")
    rows = [_row(outcome) for outcome in outcomes]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows))
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    killed = "; ".join(
        f"{outcome.backend}: " + ", ".join(f"{count} {kind}" for kind, count in outcome.kills.items())
        for outcome in outcomes
    )
    beside = "\n".join(f"- {line}" for line in control) or "- not run"
    return f"""# Chaos

{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}, Python
{platform.python_version()}; {versions}.

A deterministic sweep of two arms (task loss and online) runs on a cluster of a head and two nodes, with an MLflow
server beside it. At random moments (seed {seed}) SIGKILL ends, by turns, its driver, the process of a running trial, a
node with all that runs on it, or the MLflow server. Whatever a watchdog would start again is started again: the
driver's command, a new node, the server. Then every store is compared with those of the same sweep left in peace.

    {command}

{table}

Killed: {killed}.

- **repeated passes**: training passes beyond those of the undisturbed sweep, counted by the base learner itself; in
  brackets what one checkpoint interval of every running trial a kill would come to.
- **duplicates**: ends or commits noted twice, runs beyond one a trial, metric points delivered twice.
- **lost**: trials, runs or metric points that are not there.
- **RUNNING**: runs that MLflow shows as running after the end.
- **difference**: trials whose settings, end or learning curves, and rows of the final table, that are not bit for bit
  those of the undisturbed sweep (time and memory aside).

The same scenario with Ray Tune, OptunaSearch and MLflowLoggerCallback alone (`olfl_ray/bench/control.py`):

{beside}
"""


def _row(outcome: Outcome) -> tuple[str, ...]:
    f = outcome.found
    numbers = (f.runs, f.duplicates, f.lost, f.running, f.difference)
    return (
        outcome.backend,
        str(sum(outcome.kills.values())),
        str(outcome.starts),
        str(f.trials),
        str(f.commits),
        f"{outcome.repeated} of {outcome.passes} ({outcome.allowed})",
        *map(str, numbers),
        f"{outcome.seconds:.0f}",
    )
