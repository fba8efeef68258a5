"""The online step compared with a plain step: time and memory as ratios, and the gradient's error, for us and for peers."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.contestants import CONTESTANTS, NETWORKS, Arena, entered
from benchmarks.engine.document import write_document
from benchmarks.engine.peak import Peak, peak_memory
from olfl_ray.engine import arithmetic, keep_freed_memory
from olfl_ray.errors import SetupError, UserError
from olfl_ray.storage import writable_folder

__all__ = ["Row", "bench_engine"]

PROFILED = ("LeNet-5", "ResNet-18")
ERROR_ROWS = 8
"""Number of examples of the batch on which gradients are compared with float64."""
SECONDS = {False: 40.0, True: 1.5}
"""Wall-clock budget of one network's timings, by quick."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant on one network.

    Args:
        network: Base learner.
        contestant: Name of the contestant.
        rows: Batch size.
        median_ms: Median time of a step.
        spread_ms: Half the distance between the quartiles.
        ratio: Median over rounds of this time over the plain step's in the same round.
        tensor_bytes: Peak of the tensors' memory above that before the first step; None: not measured.
        tensor_ratio: The same divided by a plain step's.
        resident_bytes: Peak of the process's resident size, above that before the first step; None: not measured.
        error: Relative distance of the gradient of phi from float64; None for the plain step and for Betty.
    """

    network: str
    contestant: str
    rows: int
    median_ms: float
    spread_ms: float
    ratio: float
    tensor_bytes: int | None
    tensor_ratio: float | None
    resident_bytes: int | None
    error: float | None


def bench_engine(
    out: Path,
    *,
    quick: bool = False,
    networks: Sequence[str] = tuple(NETWORKS),
    rows: int = 128,
    threads: int | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Path:
    """Run the benchmark and write its document.

    Args:
        out: Folder of the documents.
        quick: Small batches, few rounds, no memory and no profile: shows that everything runs, measures little.
        networks: Names of `NETWORKS`.
        rows: Batch size, of train and meta batches.
        threads: Threads of each step; None: torch's own number. On a busy machine, 1 gives less noise.
        device: cpu, cuda or cuda:N. On a GPU also captured and compiled steps, TF32 and bf16.
        say: Called with lines of progress.

    Returns:
        The Markdown file.

    Raises:
        UserError: A network's name is unknown, there is no such device, or the folder can't be written.
    """
    for network in networks:
        if network not in NETWORKS:
            raise UserError(f"networks: there is no {network!r}; use some of {', '.join(NETWORKS)}")
    _check_device(device)
    out = writable_folder(out, "--out")
    command = "python -m benchmarks engine" + (" --quick" if quick else "") + (f" --rows {rows}" if rows != 128 else "")
    command += f" --device {device}" if device != "cpu" else ""
    command += f" --threads {threads}" if threads is not None else ""
    if tuple(networks) != tuple(NETWORKS):
        command += "".join(f' --network "{network}"' for network in networks)
    rows = min(rows, 16) if quick else rows
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    with arithmetic("float32"):
        stem = f"engine-{'quick' if quick else f'batch{rows}'}" + ("-gpu" if device != "cpu" else "")
        found: list[dict[str, Any]] = []
        profiles: dict[str, list[tuple[str, float]]] = {}
        missing: dict[str, dict[str, str]] = {}
        for network in networks:
            measured, missing[network] = _network(network, rows, quick, device, say)
            found += [asdict(row) for row in measured]
            if network in PROFILED and not quick:
                profiles[network] = profile(network, rows, device)
            # After each network: a lent machine may be taken back before the last.
            document = write_document(out, stem, found, profiles, missing, command=command, device=device)
    return document


def _check_device(device: str) -> None:
    try:
        known = device == "cpu" or torch.device(device).type == "cuda"
    except RuntimeError:
        known = False
    if not known:
        raise SetupError(f"device: {device!r} is none that is measured; use cpu, cuda or cuda:N")
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise SetupError(
            f"device: {device!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs here; use cpu"
        )


def _network(
    network: str, rows: int, quick: bool, device: str, say: Callable[[str], None]
) -> tuple[list[Row], dict[str, str]]:
    """The rows of a network, and why the missing contestants did not run."""
    steps, missing = _started(network, rows, entered(device), device)
    for name, reason in missing.items():
        say(f"{network:16s} {name:24s} not run: {reason}")
    names = list(steps)
    times = _times(steps, SECONDS[quick], device)
    del steps
    errors = _errors(network, names, device)
    memory: dict[str, Peak] = {} if quick else {name: peak_memory(network, rows, name, device) for name in names}
    plain = times["plain step"]
    found = []
    for name in names:
        quarters = statistics.quantiles(times[name], n=4)
        taken = memory.get(name)
        row = Row(
            network=network,
            contestant=name,
            rows=rows,
            median_ms=1e3 * statistics.median(times[name]),
            spread_ms=1e3 * (quarters[2] - quarters[0]) / 2,
            ratio=statistics.median(mine / other for mine, other in zip(times[name], plain, strict=True)),
            tensor_bytes=None if taken is None else taken.tensors,
            tensor_ratio=None if taken is None else taken.tensors / memory["plain step"].tensors,
            resident_bytes=None if taken is None else taken.resident,
            error=errors.get(name),
        )
        say(f"{network:16s} {name:24s} {row.median_ms:10.2f} ms  {row.ratio:6.2f}")
        found.append(row)
    return found, missing


def _started(
    network: str, rows: int, names: Sequence[str], device: str
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Contestants after a first step, and why others failed (no compiler, no memory); a plain step and ours must not fail."""
    steps: dict[str, Callable[[], object]] = {}
    missing = {}
    for name in names:
        try:
            with arithmetic(CONTESTANTS[name].precision):
                step = CONTESTANTS[name].start(Arena(network, rows, device=device))
                step()
        except Exception as error:  # a peer's library may raise anything
            if name in ("plain step", "ours: auto"):
                raise
            missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        else:
            steps[name] = step
    return steps, missing


def _times(steps: Mapping[str, Callable[[], object]], budget: float, device: str) -> dict[str, list[float]]:
    """Seconds per step, one value per round; in each round all contestants take their turn."""
    first = {name: _seconds(step, name, 1, device) for name, step in steps.items()}
    once = sum(first.values())
    repeats = max(1, min(20, int(budget / 20 / once)))
    rounds = max(3, min(31, int(budget / (repeats * once))))
    times: dict[str, list[float]] = {name: [seconds] if repeats == 1 else [] for name, seconds in first.items()}
    while len(times["plain step"]) < rounds:
        for name, step in steps.items():
            times[name].append(_seconds(step, name, repeats, device) / repeats)
    return times


def _seconds(step: Callable[[], object], name: str, repeats: int, device: str) -> float:
    on_gpu = device.startswith("cuda")
    with arithmetic(CONTESTANTS[name].precision):
        if on_gpu:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(repeats):
            step()
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began


def _errors(network: str, names: Sequence[str], device: str) -> dict[str, float]:
    """Relative distance of the first step's gradient of phi from that of reverse over reverse in float64, on the CPU."""
    wanted = CONTESTANTS["ours: reverse"].start(Arena(network, ERROR_ROWS, torch.float64))()
    assert wanted is not None
    size = torch.stack([value.norm() for value in wanted]).norm()
    found = {}
    for name in names:
        with arithmetic(CONTESTANTS[name].precision):
            grads = CONTESTANTS[name].start(Arena(network, ERROR_ROWS, device=device))()
        if grads is not None:
            off = [(mine.cpu().double() - value).norm() for mine, value in zip(grads, wanted, strict=True)]
            found[name] = (torch.stack(off).norm() / size).item()
    return found


def profile(network: str, rows: int, device: str = "cpu", steps: int = 3) -> list[tuple[str, float]]:
    """Operators of `ours: auto` (kernels, on a GPU) and their share of a step's time, the largest first."""
    on_gpu = device.startswith("cuda")
    step = CONTESTANTS["ours: auto"].start(Arena(network, rows, device=device))
    step()
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(steps):
            step()
    events = [
        (event.key, float(event.self_device_time_total if on_gpu else event.self_cpu_time_total))
        for event in seen.key_averages()
    ]
    total = sum(spent for _, spent in events)
    return sorted(((name, spent / total) for name, spent in events), key=lambda pair: -pair[1])[:12]


if __name__ == "__main__":  # for machines without Typer, and so without `olfl`
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.timing", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/engine"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--network", action="append")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = vars(parser.parse_args())
    print(bench_engine(given.pop("out"), networks=given.pop("network") or tuple(NETWORKS), **given))
