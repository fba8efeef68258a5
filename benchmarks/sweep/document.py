"""The sweep benchmark's document: Markdown, Parquet and a figure, and what its numbers mean for large studies."""

from __future__ import annotations

import datetime
import io
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sweep.growth import Growth
from olfl_ray.machine import processor, version_of
from olfl_ray.records import to_parquet
from olfl_ray.storage import LocalStorage

if TYPE_CHECKING:
    from benchmarks.sweep.timing import Row

__all__ = ["Limit", "limits", "write_document"]

LABELS = {
    "olfl": "olfl sweep run",
    "tune": "Ray Tune, OptunaSearch",
    "tune-mlflow": "Ray Tune, OptunaSearch, MLflowLoggerCallback",
}
QUICK = "It shows that everything runs: its numbers mean nothing."
SHOWN = ("ray", "optuna", "mlflow", "torch")
TRIALS, NODES = 100_000, 1_000
"""The hypothetical large study; one trial at a time on each node."""
LATENCIES = (0.01, 0.03, 0.1)
"""Seconds per conditional create in an object store."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A resource that all trials of a study use one after another.

    Args:
        what: Its name.
        seconds: Time per trial.
        advice: What to set if it is the bottleneck.
    """

    what: str
    seconds: float
    advice: str


def limits(rows: Sequence[Row], growth: Sequence[Growth], mlflow: Mapping[str, float]) -> list[Limit]:
    """The time that a trial of the large study needs of each shared resource, from the measured unit costs.

    Args:
        rows: Sweeps of sleeping trials.
        growth: A driver as its study grows.
        mlflow: Seconds to deliver a trial's run, by store.
    """
    loop = marginal(rows, "loop_cpu_seconds") - marginal(rows, "sampler_seconds")  # the sweeps used TPE
    last = growth[-1].growing
    tpe = statistics.linear_regression([one.trials for one in growth], [one.restart.tpe for one in growth])
    mean = tpe.intercept + tpe.slope * TRIALS / 2
    here = loop + last.storage
    found = [
        Limit(
            what="the driver's thread (Tune's loop, conductor, ledger), random points, ledger on a local disk",
            seconds=here,
            advice="longer trials, or several studies side by side (one driver each)",
        ),
        Limit(
            what=f"the driver's thread with TPE, whose proposal takes {1e3 * mean:.0f} ms on the average of such a study",
            seconds=here + mean,
            advice="search.sampler: random or qmc, or several arms, each of which searches alone",
        ),
    ]
    for latency in LATENCIES:
        found.append(
            Limit(
                what=f"the driver's thread, random points, ledger in an object store at {1e3 * latency:.0f} ms a create",
                seconds=loop + last.events * latency,
                advice="storage on a disk that the nodes share, or in the region of the head",
            )
        )
    for store, seconds in mlflow.items():
        found.append(
            Limit(
                what=f"MLflow on {store}; trials do not wait for it, runs come late",
                seconds=seconds,
                advice="a server on PostgreSQL near the head; the end of the study waits for what is left",
            )
        )
    return found


def marginal(rows: Sequence[Row], field: str) -> float:
    """The increase of one of our numbers per trial: the difference between the largest and the smallest sweep."""
    ours = sorted((row for row in rows if row.contestant == "olfl"), key=lambda row: row.trials)
    small, large = ours[0], ours[-1]
    if small.trials == large.trials:
        return float(getattr(large, field)) / large.trials
    return float(getattr(large, field) - getattr(small, field)) / (large.trials - small.trials)


def write_document(
    out: Path,
    stem: str,
    rows: Sequence[Row],
    growth: Sequence[Growth],
    mlflow: Mapping[str, float],
    *,
    command: str,
) -> Path:
    """Write `STEM-DATE.md`, `.parquet` and `.png` into `out`.

    Args:
        out: Folder; created if it does not exist.
        stem: Start of the files' names.
        rows: Sweeps of sleeping trials.
        growth: A driver as its study grows.
        mlflow: Seconds to deliver a trial's run, by store.
        command: The command that was run.

    Returns:
        The Markdown file.
    """
    import pyarrow as pa

    folder, name = LocalStorage(out), f"{stem}-{datetime.datetime.now(datetime.UTC).date().isoformat()}"
    folder.write(f"{name}.parquet", to_parquet(pa.Table.from_pylist([asdict(row) for row in rows])))
    folder.write(f"{name}.png", _picture(rows, growth))
    parts = [_head(name, command), *(_scene(scene, rows) for scene in dict.fromkeys(row.scene for row in rows))]
    parts += [_growth(rows, growth), _large(rows, growth, mlflow)]
    folder.write(f"{name}.md", ("\n\n".join(parts) + "\n").encode())
    return out / f"{name}.md"


def _head(name: str, command: str) -> str:
    quick = f" {QUICK}" if "--quick" in command else ""
    versions = ", ".join(f"{shown} {version_of(shown)}" for shown in SHOWN)
    return f"""# What a study costs beyond its trials, {name[-10:]}

Command: `{command}`.{quick} Machine: {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()};
Python {platform.python_version()}; {versions}.

Every contestant runs the same trials through `olfl_ray.trial.run`: one base step, then an evaluation that sleeps
(`benchmarks/sweep/sleeping.py`), two at a time, each sweep in a process and a Ray of its own, one after another. Optuna's
TPE searches three fields. `olfl sweep run` is the whole product: ledger, commits with their checkpoints, MLflow on SQLite, report.
Plain Tune keeps no checkpoint; it reuses its workers and runs two trials at a time as well.

- **took**: from the first trial's start to the last one's end, by the workers' own clocks. Starting Ray and the workers
  (imports) comes before; it is in **whole**, with all that comes after.
- **own work**: what a trial takes beyond its sleep, mean.
- **overhead**: took over (the trials' seconds, own work included, by two slots), less 1. **over sleep**: over the sleep alone.
- **gap**: median time of a worker between two trials; in brackets in the first and in the last quarter of the sweep.
- **sampler**: time in TPE, all proposals together; no trial starts meanwhile.

![overhead, and a driver's cost as its study grows]({name}.png)"""


def _scene(scene: str, rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row.scene == scene]
    first = mine[0]
    head = ("sweep", "round", "took s", "own work ms", "overhead", "over sleep", "gap ms", "sampler s", "driver CPU s")
    lines = [
        f"## {first.trials} trials of {first.sleep_seconds:g} s",
        "",
        "| " + " | ".join((*head, "driver MB", "whole s")) + " |",
        "|" + "---|" * (len(head) + 2),
    ]
    for row in mine:
        own = row.trial_seconds / row.trials - row.sleep_seconds
        gaps = f"{1e3 * row.gap_seconds:.0f} ({1e3 * row.early_gap_seconds:.0f}, {1e3 * row.late_gap_seconds:.0f})"
        lines.append(
            f"| {LABELS[row.contestant]} | {row.round} | {row.took_seconds:.2f} | {1e3 * own:.1f} | {row.overhead:+.1%} "
            f"| {row.over_sleep:+.1%} | {gaps} | {row.sampler_seconds:.2f} | {row.driver_cpu_seconds:.1f} "
            f"| {row.driver_memory_bytes / 1e6:.0f} | {row.whole_seconds:.1f} |"
        )
    return "\n".join(lines)


def _growth(rows: Sequence[Row], growth: Sequence[Growth]) -> str:
    lines = [
        "## A driver as its study grows",
        "",
        "A real ledger on disk, a real conductor; workers' words come at once, so that only the driver's own time is left",
        "(no Ray, no MLflow). Means over the last 100 trials before each size; restart: a new driver that finds the study.",
        "TPE: median proposal with that many finished trials. It looks at every trial before, so its cost grows with them, and a",
        "study's with their square: that part is Optuna's. `search.sampler: random` or `qmc` do without.",
        "",
        "| finished trials | conductor ms a trial | of it ledger on disk | of it Optuna (random) | memory MB | TPE ms "
        "| restart: ledger s | event by event s | search s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in growth:
        g, r = one.growing, one.restart
        lines.append(
            f"| {one.trials} | {1e3 * g.conductor:.2f} | {1e3 * g.storage:.2f} | {1e3 * g.sampler:.2f} "
            f"| {g.memory_bytes / 1e6:.0f} | {1e3 * r.tpe:.1f} | {r.load:.2f} | {r.load_events:.2f} | {r.replay:.2f} |"
        )
    first, last = growth[0], growth[-1]
    bare = (last.growing.memory_bytes - first.growing.memory_bytes) / (last.trials - first.trials)
    lines += [
        "",
        f"Memory a trial: {bare / 1e3:.1f} kB here; {marginal(rows, 'driver_memory_bytes') / 1e3:.0f} kB in the whole driver, "
        "Tune's and MLflow's included (from the sweeps above).",
    ]
    return "\n".join(lines)


def _large(rows: Sequence[Row], growth: Sequence[Growth], mlflow: Mapping[str, float]) -> str:
    found = limits(rows, growth, mlflow)
    worst = max(found, key=lambda limit: limit.seconds)
    memory = marginal(rows, "driver_memory_bytes") * TRIALS / 1e9
    load = growth[-1].restart.load / growth[-1].trials * TRIALS
    lines = [
        f"## {TRIALS:,} trials on {NODES:,} nodes, on paper",
        "",
        "There is one of each of these, and every trial passes through it. What it takes a trial was measured above (a create's",
        "time in an object store is given); TPE's cost is drawn out as a straight line. The shortest trial is the length at",
        f"which {NODES:,} trials at a time, one a node, keep it just busy; with shorter ones nodes wait.",
        "",
        f"| what | ms a trial | trials/s | {TRIALS:,} trials, hours | shortest trial s | what to set |",
        "|---|---|---|---|---|---|",
    ]
    for limit in found:
        lines.append(
            f"| {limit.what} | {1e3 * limit.seconds:.1f} | {1 / limit.seconds:.1f} | {limit.seconds * TRIALS / 3600:.1f} "
            f"| {limit.seconds * NODES:.0f} | {limit.advice} |"
        )
    lines += [
        "",
        f"First to saturate: {worst.what}. Trials without end take {memory:.1f} GB of the driver's memory, and a restart reads",
        f"the compacted ledger in {load:.0f} s. Not in this model: the network, and starting {NODES:,} workers.",
    ]
    return "\n".join(lines)


def _picture(rows: Sequence[Row], growth: Sequence[Growth]) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    bars, lines = figure.subplots(1, 2)
    scenes = list(dict.fromkeys(row.scene for row in rows))
    for place, (name, label) in enumerate(LABELS.items()):
        heights = [
            100 * statistics.median(row.overhead for row in rows if (row.scene, row.contestant) == (scene, name))
            for scene in scenes
        ]
        drawn = bars.bar([index + 0.27 * (place - 1) for index, _ in enumerate(scenes)], heights, 0.25, label=label)
        bars.bar_label(drawn, fmt="%.1f", fontsize="small")
    bars.set_xticks(range(len(scenes)), scenes)
    bars.set_ylabel("overhead, % of the trials' own time")
    bars.legend(fontsize="small")
    sizes = [one.trials for one in growth]
    series: dict[str, list[Any]] = {
        "conductor": [1e3 * one.growing.conductor for one in growth],
        "of it ledger on disk": [1e3 * one.growing.storage for one in growth],
        "TPE": [1e3 * one.restart.tpe for one in growth],
    }
    for label, values in series.items():
        lines.plot(sizes, values, marker="o", label=label)
    lines.set_xlabel("finished trials")
    lines.set_ylabel("ms a trial")
    lines.set_yscale("log")
    lines.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lines.yaxis.set_major_formatter("{x:g}")
    lines.yaxis.set_minor_formatter(NullFormatter())
    lines.legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, dpi=130, format="png")
    return content.getvalue()
