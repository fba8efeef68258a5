"""The sweep benchmark really runs every contestant, and computes its numbers from the recorded times."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.sweep.contestants import CONTESTANTS
from benchmarks.sweep.document import LABELS
from benchmarks.sweep.sleeping import Span, read_spans
from benchmarks.sweep.timing import QUICK, bench_sweep, row_of

NOTED = {
    "whole_seconds": 9.0,
    "sampler_seconds": 0.25,
    "loop_cpu_seconds": 1.0,
    "driver_cpu_seconds": 2.0,
    "driver_memory_bytes": 1,
}


def test_quick_benchmark_gives_a_table_with_every_contestant(tmp_path: Path) -> None:
    lines: list[str] = []
    document = bench_sweep(tmp_path, quick=True, say=lines.append)
    rows = pq.read_table(document.with_suffix(".parquet")).to_pylist()
    [(trials, seconds)] = QUICK.values()
    assert [row["contestant"] for row in rows] == list(CONTESTANTS)
    text = document.read_text()
    for row in rows:
        assert row["trials"] == trials
        assert row["trial_seconds"] >= trials * seconds
        assert row["took_seconds"] >= row["trial_seconds"] / row["slots"]
        assert row["overhead"] == pytest.approx(row["took_seconds"] * row["slots"] / row["trial_seconds"] - 1)
        assert 0 < row["sampler_seconds"] < row["whole_seconds"] > row["took_seconds"]
        assert f"| {LABELS[row['contestant']]} | 1 | {row['took_seconds']:.2f} |" in text
    assert document.with_suffix(".png").stat().st_size > 1000
    assert len(lines) == len(CONTESTANTS) + 2
    assert "MLflow on SQLite" in text


def test_overhead_is_computed_from_the_workers_own_clocks(tmp_path: Path) -> None:
    notes = ["1 begin 10.0", "2 begin 10.5", "9 begin 11.0", "1 end 11.5", "2 end 12.0", "1 begin 11.7", "1 end 13.0"]
    (tmp_path / "spans").write_text("".join(f"{note}\n" for note in notes))
    (tmp_path / "found.json").write_text(json.dumps(NOTED))
    assert read_spans(tmp_path / "spans") == [Span(1, 10.0, 11.5), Span(2, 10.5, 12.0), Span(1, 11.7, 13.0)]
    row = row_of(tmp_path, "scene", "olfl", 1, 1.0)
    assert row.trials == 3  # process 9 only built a learner, for a check
    assert row.took_seconds == pytest.approx(3.0)
    assert row.trial_seconds == pytest.approx(4.3)
    assert row.overhead == pytest.approx(3.0 / 2.15 - 1)
    assert row.over_sleep == pytest.approx(1.0)
    assert row.gap_seconds == pytest.approx(0.2)
