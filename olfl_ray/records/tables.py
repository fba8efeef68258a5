"""Records as Arrow tables and Parquet bytes: one row a (step, metric, replicate)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from olfl_ray.records.record import Record, Surface

__all__ = [
    "RECORDS",
    "SURFACES",
    "from_parquet",
    "records_from_table",
    "records_to_table",
    "surfaces_to_table",
    "to_parquet",
]

RECORDS = pa.schema(
    [
        ("step", pa.int64()),
        ("metric", pa.string()),
        ("replicate", pa.int32()),
        ("value", pa.float64()),
        ("time_ms", pa.int64()),
    ]
)
"""One metric of one replicate at one step."""

SURFACES = pa.schema(
    [
        ("step", pa.int64()),
        ("replicate", pa.int32()),
        ("target", pa.float64()),
        ("output", pa.float64()),
        ("learned", pa.float64()),
        ("task", pa.float64()),
    ]
)
"""One grid point of one replicate's learned loss at one step."""


def records_to_table(records: Sequence[Record]) -> pa.Table:
    """Rows in the order of the records, their metrics and their replicates."""
    rows = [
        (record.step, metric, replicate, value, record.time_ms)
        for record in records
        for metric, values in record.metrics.items()
        for replicate, value in enumerate(values)
    ]
    return _table(RECORDS, rows)


def surfaces_to_table(surfaces: Sequence[Surface]) -> pa.Table:
    """One row a grid point."""
    rows = [
        (surface.step, surface.replicate, *point)
        for surface in surfaces
        for point in zip(surface.target, surface.output, surface.learned, surface.task, strict=True)
    ]
    return _table(SURFACES, rows)


def records_from_table(table: pa.Table) -> list[Record]:
    """The inverse of `records_to_table`, surfaces aside: a record is rows of one (step, time) with each replicate once a metric."""
    records: list[tuple[int, int, dict[str, list[float]]]] = []
    for row in table.to_pylist():
        step, time_ms, metric = row["step"], row["time_ms"], row["metric"]
        if not records or records[-1][:2] != (step, time_ms) or row["replicate"] != len(records[-1][2].get(metric, ())):
            records.append((step, time_ms, {}))
        records[-1][2].setdefault(metric, []).append(row["value"])
    return [
        Record(step=step, time_ms=time_ms, metrics={name: tuple(values) for name, values in metrics.items()})
        for step, time_ms, metrics in records
    ]


def to_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """The inverse of `to_parquet`."""
    return pq.read_table(pa.BufferReader(data))


def _table(schema: pa.Schema, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)], schema)
