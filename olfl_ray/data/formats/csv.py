"""CSV files, with a header or without; read by Arrow, which infers each column's type from all of its cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.formats.base import FIELD, FileFormat
from olfl_ray.data.table import TableConfig, dataset_of
from olfl_ray.errors import SpecError
from olfl_ray.memory import free_memory, refuse_too_large
from olfl_ray.spec import as_tuple

__all__ = ["Csv"]

DELIMITERS = ";\t|,"
LEAST_BLOCK, LARGEST_BLOCK = 2**20, 2**31 - 2
"""Bytes that Arrow reads at once; it infers types from the first block."""


class Csv(FileFormat):
    """A CSV file."""

    class Config(TableConfig):
        """How the text is read, and which columns are what."""

        delimiter: Annotated[str, Field(pattern=r"^[\t\x20-\x7e]$")] = ","
        """Character between two cells: a tab, or another one of ASCII."""
        encoding: Annotated[str, Field(min_length=1)] = "utf-8"
        """Encoding of the text."""
        columns: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
        """Names of the columns of a file without a header; empty: its first line has them."""
        null: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = (
            *("", "?", "NA", "N/A", "NaN", "nan", "None", "NULL", "null"),
        )
        """Texts that mean a missing value."""

    def read(self, path: Path) -> Dataset:
        """The data set of a CSV file."""
        import pyarrow as pa
        from pyarrow import csv

        given = self.config
        refuse_too_large(2 * path.stat().st_size, path.name, FIELD, free_memory())
        block = min(max(path.stat().st_size, LEAST_BLOCK), LARGEST_BLOCK)
        try:
            "a".encode(given.encoding)  # refuses zip and the like, which are no encodings of text
            table = csv.read_csv(
                path,
                read_options=csv.ReadOptions(
                    encoding=given.encoding,
                    block_size=block,
                    column_names=list(given.columns) or None,
                    use_threads=False,  # so that errors have a row
                ),
                parse_options=csv.ParseOptions(delimiter=given.delimiter, newlines_in_values=True),
                convert_options=csv.ConvertOptions(null_values=list(given.null), strings_can_be_null=True),
            )
        except LookupError as error:
            raise SpecError(f"{FIELD}.encoding", f"{error}; give one that Python knows, such as latin-1") from None
        except UnicodeError as error:
            raise _encoding(path, given, str(error)) from None
        except (pa.ArrowException, OSError) as error:
            raise SpecError(FIELD, f"{path} can't be read as CSV: {_reason(error)}") from None
        if any(pa.types.is_binary(column.type) for column in table.columns):
            raise _encoding(path, given, "some bytes are no character of it")
        self._check_delimiter(table.column_names, path)
        return dataset_of(table, given, path.name)

    def _check_delimiter(self, names: list[str], path: Path) -> None:
        own = self.config.delimiter
        others = [sign for sign in DELIMITERS if sign != own and sign in names[0]]
        if len(names) == 1 and others:
            raise SpecError(
                f"{FIELD}.delimiter",
                f"{path.name} has only one column, {names[0][:80]!r}, if cells are separated by {own!r}; give delimiter: "
                f"{others[0]!r}",
            )


def _encoding(path: Path, given: Any, why: str) -> SpecError:
    return SpecError(
        f"{FIELD}.encoding", f"{path.name} is not text in {given.encoding} ({why}); give its encoding, such as latin-1"
    )


def _reason(error: Exception) -> str:
    """Arrow's reason with a next move."""
    text = " ".join(str(error).split())[:200]
    if "Empty CSV file" in text:
        return "it is empty; name a file with a header and rows"
    text = re.sub(r"^CSV parse error: ", "", text)
    return f"{text}; correct that line, or the delimiter"
