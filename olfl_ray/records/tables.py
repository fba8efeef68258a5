"""Records as Arrow tables and Parquet bytes: one row per (step, metric, replicate)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from olfl_ray.errors import DataError
from olfl_ray.records.record import Record, Surface

__all__ = [
    "MOST_ROWS",
    "RECORDS",
    "SURFACES",
    "from_parquet",
    "records_from_table",
    "records_to_table",
    "surfaces_to_table",
    "to_parquet",
]

MOST_ROWS, MOST_BYTES, MOST_LETTERS = 4_000_000, 2**28, 1000
"""Limits of one commit's table: rows, bytes in memory with texts decoded, letters per text."""

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
    """One row per grid point."""
    rows = [
        (surface.step, surface.replicate, *point)
        for surface in surfaces
        for point in zip(surface.target, surface.output, surface.learned, surface.task, strict=True)
    ]
    return _table(SURFACES, rows)


def records_from_table(table: pa.Table) -> list[Record]:
    """The inverse of `records_to_table`, without surfaces: a record comprises all rows of one (step, time)."""
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


def from_parquet(data: bytes, schema: pa.Schema) -> pa.Table:
    """The inverse of `to_parquet`, for a table that a trial wrote; sizes are checked before anything is read.

    Args:
        data: The file's bytes.
        schema: The columns that the table must have.

    Raises:
        DataError: It is not such a table, or is larger than any that a trial writes.
    """
    try:
        # Texts stay dictionary-encoded, as in the file: a short file may expand to gigabytes.
        texts = [field.name for field in schema if field.type == pa.string()]
        found = pq.read_metadata(pa.BufferReader(data))
        size = sum(found.row_group(group).total_byte_size for group in range(found.num_row_groups))
        if found.num_rows > MOST_ROWS or size > MOST_BYTES:
            raise DataError(
                f"a table of {found.num_rows} rows and {size} bytes is larger than any that a trial writes (at most {MOST_ROWS} "
                f"rows, {MOST_BYTES} bytes)"
            )
        if (columns := found.schema.to_arrow_schema().names) != schema.names:
            raise DataError(f"a table has the columns {columns}, not {schema.names}")
        table = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts).read()
        for name in texts:
            longest = max((len(text or "") for chunk in table[name].chunks for text in _words(chunk)), default=0)
            if longest > MOST_LETTERS:
                raise DataError(f"a table's column {name} has a text of {longest} letters; at most {MOST_LETTERS}")
        return table.cast(schema)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"is not a table of records ({str(error).splitlines()[0][:200]})") from None


def _words(column: pa.Array) -> list[str | None]:
    """The distinct texts of a column."""
    words: list[str | None] = (
        column.dictionary if pa.types.is_dictionary(column.type) else column.unique()
    ).to_pylist()
    return words


def _table(schema: pa.Schema, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table([pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)], schema)
