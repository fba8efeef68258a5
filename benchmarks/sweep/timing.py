"""The cost of a study beyond its trials: sleeping trials compared with plain Ray Tune, and a driver as its study grows."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sweep.contestants import CONTESTANTS
from benchmarks.sweep.document import write_document
from benchmarks.sweep.growth import measure_growth, mlflow_seconds
from benchmarks.sweep.sleeping import Span, read_spans
from olfl_ray.errors import SetupError
from olfl_ray.storage import writable_folder

__all__ = ["Row", "bench_sweep", "row_of"]

SLOTS = 2
SCENES = {"one-second trials": (100, 1.0), "short trials": (1000, 0.05)}
QUICK = {"short trials": (8, 0.1)}
"""Scene -> number of trials and seconds of sleep."""
SIZES, QUICK_SIZES = (1000, 3000, 10_000), (20, 40)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sweep.

    Args:
        scene: Name of the scene.
        contestant: Name of the contestant.
        round: Number of the round, from 1.
        trials: Number of trials.
        slots: Number of concurrent trials.
        sleep_seconds: Sleep of each trial.
        took_seconds: From the first trial's start to the last one's end.
        trial_seconds: Time of the workers in all trials together.
        overhead: `took_seconds` over `trial_seconds` / `slots`, less 1.
        over_sleep: The same relative to the sleep alone.
        gap_seconds: Median time of a worker between the end of a trial and its next start.
        early_gap_seconds: The same in the first quarter of the sweep.
        late_gap_seconds: The same in the last quarter.
        sampler_seconds: Time in Optuna's TPE, all proposals together.
        loop_cpu_seconds: CPU time of the driver's main thread.
        driver_cpu_seconds: CPU time of the driver, all its threads.
        driver_memory_bytes: Its resident size at the end.
        whole_seconds: From its call to its return, including the start of Ray and the workers, and the report.
    """

    scene: str
    contestant: str
    round: int
    trials: int
    slots: int
    sleep_seconds: float
    took_seconds: float
    trial_seconds: float
    overhead: float
    over_sleep: float
    gap_seconds: float
    early_gap_seconds: float
    late_gap_seconds: float
    sampler_seconds: float
    loop_cpu_seconds: float
    driver_cpu_seconds: float
    driver_memory_bytes: int
    whole_seconds: float


def bench_sweep(
    out: Path, *, quick: bool = False, rounds: int = 1, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Run the benchmark and write its document.

    Args:
        out: Folder of the documents.
        quick: Few trials in one process: shows that everything runs, measures little.
        rounds: Number of runs of each scene; contestants take turns.
        say: Called with lines of progress.

    Returns:
        The Markdown file.

    Raises:
        SetupError: The folder can't be written.
    """
    out = writable_folder(out, "--out")
    rows = []
    command = (
        "python -m benchmarks sweep" + (" --quick" if quick else "") + (f" --rounds {rounds}" if rounds != 1 else "")
    )
    with tempfile.TemporaryDirectory(prefix="olfl-sweep-", ignore_cleanup_errors=True) as scratch:
        for scene, (trials, seconds) in (QUICK if quick else SCENES).items():
            for turn in range(1, rounds + 1):
                folder = Path(scratch) / f"{trials}-{turn}"
                # One Ray serves them all if time matters more than the measurement.
                together = [tuple(CONTESTANTS)[::-1]] if quick else [(name,) for name in CONTESTANTS]
                for names in together:
                    _sweep(folder, names, trials, seconds)
                for name in CONTESTANTS:
                    rows.append(row_of(folder / name, scene, name, turn, seconds))
                    say(f"{scene:18s} {name:12s} {rows[-1].took_seconds:8.2f} s  {rows[-1].overhead:+.1%}")
        growth = measure_growth(Path(scratch) / "growth", QUICK_SIZES if quick else SIZES, say, apart=not quick)
        mlflow = mlflow_seconds(folder / "olfl" / "home", Path(scratch), server=not quick)
    return write_document(out, "sweep-quick" if quick else "sweep", rows, growth, mlflow, command=command)


def _sweep(folder: Path, names: Sequence[str], trials: int, seconds: float) -> None:
    command = [sys.executable, "-m", "benchmarks.sweep.contestants", str(folder), *names]
    command += ["--trials", str(trials), "--seconds", str(seconds), "--slots", str(SLOTS)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SetupError(f"{' '.join(names)}: the sweep failed; its last words: {done.stderr[-3000:]}")


def row_of(folder: Path, scene: str, contestant: str, turn: int, seconds: float) -> Row:
    """A sweep's measurements from the times recorded by its workers and its driver.

    Args:
        folder: Folder of the recorded times.
        scene: Name of the scene.
        contestant: Name of the contestant.
        turn: The round, from 1.
        seconds: Sleep of each trial.
    """
    spans, recorded = read_spans(folder / "spans"), json.loads((folder / "found.json").read_text())
    took = max(span.end for span in spans) - min(span.begin for span in spans)
    gaps = _gaps(spans)
    spent = sum(span.end - span.begin for span in spans)
    return Row(
        scene=scene,
        contestant=contestant,
        round=turn,
        trials=len(spans),
        slots=SLOTS,
        sleep_seconds=seconds,
        took_seconds=took,
        trial_seconds=spent,
        overhead=took / (spent / SLOTS) - 1,
        over_sleep=took / (len(spans) * seconds / SLOTS) - 1,
        gap_seconds=statistics.median(gaps),
        early_gap_seconds=statistics.median(gaps[: len(gaps) // 4 or 1]),
        late_gap_seconds=statistics.median(gaps[-(len(gaps) // 4) or -1 :]),
        **recorded,
    )


def _gaps(spans: Sequence[Span]) -> list[float]:
    """Seconds between two trials of one worker, in the order of the later one's start."""
    last: dict[int, Span] = {}
    gaps = []
    for span in spans:
        if span.pid in last:
            gaps.append(span.begin - last[span.pid].end)
        last[span.pid] = span
    return gaps
