"""Objects of a Python program as files that every trial can read: a table as Parquet, arrays and torch data sets as Arrow."""

# N examples

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.load import of_object
from olfl_ray.data.prepared import created, keep
from olfl_ray.errors import SpecError

__all__ = ["store"]

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"


def store(given: Any, name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write an object to a file that is named after its content.

    Args:
        given: A pandas or Arrow table; (x, y); a `Dataset`; or a torch data set of (x, y).
        name: Name of the data set.
        folder: Where the file is written.
        options: Settings of a table, such as target.

    Returns:
        A spec's `task.dataset`.

    Raises:
        SpecError: The object, its name or an option is invalid.
    """
    if not re.fullmatch(NAME, name):
        raise SpecError("name", f"is {name!r}; use letters, digits, _ and -")
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        given = pa.Table.from_pandas(given, preserve_index=False)
    if isinstance(given, pa.Table):
        table = given.replace_schema_metadata(None)
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
        created(path, lambda file: file.write_bytes(content))
        return {"name": f"parquet:{path}", **options}
    if options:
        raise SpecError(next(iter(options)), "is an option of a table; give a pandas or Arrow table, or leave it out")
    if not isinstance(given, Dataset | tuple):
        given = _stacked(given)
    found = of_object(name, given)
    path = folder / f"{name}-{found.fingerprint[:16]}.arrow"
    keep(found, path)
    own = {"kind": found.kind} if ":" in found.kind else {}  # code, which a file may not choose
    return {"name": f"arrow:{path}", **own}


def _stacked(given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a torch data set of (x, y)."""
    if not (hasattr(given, "__getitem__") and hasattr(given, "__len__")) or isinstance(
        given, str | list | dict | np.ndarray
    ):
        raise SpecError(
            "given",
            f"is a {type(given).__name__}; give a pandas or Arrow table, (x, y), a Dataset, or a torch Dataset with a length",
        )
    pairs = [given[index] for index in range(len(given))]
    if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise SpecError("given", f"{type(given).__name__} must have items (x, y), at least one; return both")
    inputs = [_array(x) for x, _ in pairs]
    shapes = {one.shape for one in inputs}
    if len(shapes) > 1:
        raise SpecError("given", f"its inputs have different shapes, {sorted(shapes)[:2]}; give them one shape")
    return np.stack(inputs), np.asarray([np.asarray(y) for _, y in pairs])


def _array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    if type(x).__module__.startswith("PIL."):  # channels come last there
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return array
