"""Parquet files."""

from __future__ import annotations

from pathlib import Path

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.formats.base import FIELD, FileFormat
from olfl_ray.data.table import TableConfig, dataset_of
from olfl_ray.errors import SpecError
from olfl_ray.memory import free_memory, refuse_too_large

__all__ = ["Parquet"]

CELL = 8
"""Bytes of a number, as it is read and as a feature."""


class Parquet(FileFormat):
    """A Parquet file."""

    class Config(TableConfig):
        """Which columns are what."""

    def read(self, path: Path) -> Dataset:
        """The data set of a Parquet file."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as file:
                cells = file.metadata.num_rows * file.metadata.num_columns
                what = f"{path.name} with {cells:,} cells"  # a repeated value takes almost no space in the file
                refuse_too_large(2 * CELL * cells, what, FIELD, free_memory())
                table = file.read()
        except (pa.ArrowException, OSError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SpecError(FIELD, f"{path} can't be read as Parquet: {reason}; write the file again") from None
        return dataset_of(table, self.config, path.name)
