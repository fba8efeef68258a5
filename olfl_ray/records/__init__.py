"""Metric names, records, and their Arrow tables."""

from olfl_ray.records import names
from olfl_ray.records.record import Record, Surface
from olfl_ray.records.tables import (
    MOST_ROWS,
    RECORDS,
    SURFACES,
    from_parquet,
    records_from_table,
    records_to_table,
    surfaces_to_table,
    to_parquet,
)

__all__ = [
    "MOST_ROWS",
    "RECORDS",
    "SURFACES",
    "Record",
    "Surface",
    "from_parquet",
    "names",
    "records_from_table",
    "records_to_table",
    "surfaces_to_table",
    "to_parquet",
]
