"""The online step side by side: time and memory over a plain step's, and the gradient's error, for us and for peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from olfl_ray.bench.contestants import CONTESTANTS, NETWORKS, Arena, installed
from olfl_ray.bench.engine_document import write_document
from olfl_ray.bench.peak import peak_memory
from olfl_ray.errors import UserError

__all__ = ["Row", "bench_engine"]

PROFILED = ("LeNet-5", "ResNet-18")
ERROR_ROWS = 8
"""Rows of the batch on which gradients are compared with float64."""
SECONDS = {False: 40.0, True: 1.5}
"""Wall-clock budget of one network's timings, by quick."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant on one network.

    Args:
        network: Base learner.
        contestant: Who.
        rows: Batch size.
        median_ms: Median time of a step.
        spread_ms: Half the distance between the quartiles.
        ratio: Median over rounds of this time over the plain step's in the same round.
        memory_bytes: Peak above the resident size before the first step; None: not measured.
        memory_ratio: That over a plain step's.
        error: Relative distance of the gradient of phi from float64; None for the plain step and for Betty.
    """

    network: str
    contestant: str
    rows: int
    median_ms: float
    spread_ms: float
    ratio: float
    memory_bytes: int | None
    memory_ratio: float | None
    error: float | None


def bench_engine(
    out: Path,
    *,
    quick: bool = False,
    networks: Sequence[str] = tuple(NETWORKS),
    rows: int = 128,
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run the benchmark and write its document.

    Args:
        out: Folder of the documents.
        quick: Small batches, few rounds, no memory and no profile: shows that all runs, measures little.
        networks: Names of `NETWORKS`.
        rows: Batch size, of train and meta batches.
        threads: Threads of each step; None: as many as torch takes. On a busy machine, 1 is the quieter measure.
        say: Takes a line of progress.

    Returns:
        The Markdown file.

    Raises:
        UserError: A network's name is unknown.
    """
    for network in networks:
        if network not in NETWORKS:
            raise UserError(f"networks: there is no {network!r}; use some of {', '.join(NETWORKS)}")
    command = "olfl bench engine" + (" --quick" if quick else "") + (f" --rows {rows}" if rows != 128 else "")
    command += f" --threads {threads}" if threads is not None else ""
    if tuple(networks) != tuple(NETWORKS):
        command += "".join(f' --network "{network}"' for network in networks)
    rows = min(rows, 16) if quick else rows
    if threads is not None:
        torch.set_num_threads(threads)
    found: list[Row] = []
    for network in networks:
        found += _network(network, rows, quick, say)
    profiles = {} if quick else {name: profile(name, rows) for name in networks if name in PROFILED}
    stem = f"engine-{'quick' if quick else f'batch{rows}'}"
    return write_document(out, stem, [asdict(row) for row in found], profiles, command=command)


def _network(network: str, rows: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    names = [name for name in CONTESTANTS if installed(name)]
    errors = _errors(network, names)
    times = _times(network, rows, names, SECONDS[quick])
    memory = {name: None if quick else peak_memory(network, rows, name) for name in names}
    plain_times, plain_memory = times["plain step"], memory["plain step"]
    found = []
    for name in names:
        quarters = statistics.quantiles(times[name], n=4)
        taken = memory[name]
        row = Row(
            network=network,
            contestant=name,
            rows=rows,
            median_ms=1e3 * statistics.median(times[name]),
            spread_ms=1e3 * (quarters[2] - quarters[0]) / 2,
            ratio=statistics.median(mine / plain for mine, plain in zip(times[name], plain_times, strict=True)),
            memory_bytes=taken,
            memory_ratio=None if taken is None or not plain_memory else taken / plain_memory,
            error=errors.get(name),
        )
        say(f"{network:16s} {name:24s} {row.median_ms:10.2f} ms  {row.ratio:6.2f}")
        found.append(row)
    return found


def _times(network: str, rows: int, names: Sequence[str], budget: float) -> dict[str, list[float]]:
    """Seconds a step, one value a round; in each round all contestants take their turn."""
    steps = {name: CONTESTANTS[name].start(Arena(network, rows)) for name in names}
    began = time.perf_counter()
    for step in steps.values():
        step()
    once = time.perf_counter() - began
    repeats = max(1, min(20, int(budget / 20 / once)))
    rounds = max(3, min(31, int(budget / (repeats * once))))
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(repeats):
                step()
            times[name].append((time.perf_counter() - began) / repeats)
    return times


def _errors(network: str, names: Sequence[str]) -> dict[str, float]:
    """Relative distance of the first step's gradient of phi from that of reverse over reverse in float64."""
    wanted = CONTESTANTS["ours: reverse"].start(Arena(network, ERROR_ROWS, torch.float64))()
    assert wanted is not None
    size = torch.stack([value.norm() for value in wanted]).norm()
    found = {}
    for name in names:
        grads = CONTESTANTS[name].start(Arena(network, ERROR_ROWS))()
        if grads is not None:
            off = torch.stack([(mine.double() - value).norm() for mine, value in zip(grads, wanted, strict=True)])
            found[name] = (off.norm() / size).item()
    return found


def profile(network: str, rows: int, steps: int = 3) -> list[tuple[str, float]]:
    """Operators of `ours: auto` and their share of a step's time, the largest first."""
    step = CONTESTANTS["ours: auto"].start(Arena(network, rows))
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            step()
    events = [(event.key, float(event.self_cpu_time_total)) for event in seen.key_averages()]
    total = sum(spent for _, spent in events)
    return sorted(((name, spent / total) for name, spent in events), key=lambda pair: -pair[1])[:12]
