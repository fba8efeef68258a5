"""Inputs and targets as one Arrow file: two columns of bytes under a header, memory-mapped and checked when read."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from olfl_ray.errors import DataError

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(path: Path, x: np.ndarray, y: np.ndarray, about: Mapping[str, Any]) -> None:
    """Write a file.

    Args:
        path: The file.
        x: Inputs (N, ...).
        y: Targets (N,) or (N, C).
        about: What else the header says, as plain values.
    """
    header = {
        "x": [x.dtype.str, x.shape],
        "y": [y.dtype.str, y.shape],
        **about,
        "fingerprint": hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest(),
    }
    columns = []
    for part in (x, y):
        flat = pa.array(np.frombuffer(np.ascontiguousarray(part), np.uint8))
        columns.append(pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat))
    batch = pa.record_batch(columns, names=["x", "y"]).replace_schema_metadata({"olfl": json.dumps(header)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def read_arrays(path: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Inputs, targets and header of a file.

    Raises:
        DataError: The file is truncated or corrupt.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        header = json.loads(table.schema.metadata[b"olfl"])
        parts, check = {}, hashlib.sha256()
        for column in ("x", "y"):
            values = table.column(column).chunk(0).values.to_numpy(zero_copy_only=True)
            dtype, shape = header[column]
            check.update(values)
            parts[column] = _tensor(values.view(np.dtype(dtype)).reshape(shape))
    except (pa.ArrowInvalid, LookupError, TypeError, ValueError, OSError, RecursionError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(f"{path}: is truncated or corrupt ({reason}); delete it to create it again") from None
    if check.hexdigest() != header.get("fingerprint"):
        raise DataError(f"{path}: its checksum does not match its content; delete it to create it again")
    return parts["x"], parts["y"], header


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on the same memory. It is read-only: nothing in this project writes to a data set's tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
