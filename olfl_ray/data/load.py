"""Data sets prepared once into Arrow files, memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.sources import SOURCES, Arrays
from olfl_ray.errors import DataError, SetupError, SpecError
from olfl_ray.plugins import load_builder, nearest

__all__ = ["describe", "load", "names"]


def names() -> list[str]:
    """Names of the built-in data sets."""
    return sorted(SOURCES)


def describe() -> list[tuple[str, str, int, tuple[int, ...], str]]:
    """Name, kind, rows, shape of a row, and where it is found, of each built-in data set."""
    root = os.environ.get("OLFL_DATA")
    found = []
    for name, source in sorted(SOURCES.items()):
        if not source.files:
            where = "bundled with scikit-learn"
        elif root and all((Path(root) / file).exists() for file in source.files):
            where = root
        else:
            where = "download, or OLFL_DATA"
        found.append((name, source.kind, source.rows, source.shape, where))
    return found


def load(name: str, options: dict[str, Any], *, cache: Path, root: Path | None) -> Dataset:
    """Load a data set, preparing it first where that was not done yet.

    Args:
        name: Built-in name, or `package.module:builder`, which gives a `Dataset` or (x, y).
        options: The builder's keyword arguments.
        cache: Folder of prepared data sets.
        root: Folder of given files (`OLFL_DATA`), or None.

    Raises:
        SpecError: The name, an option or what a builder gives does not fit.
        DataError: It can't be found, or a file of it is torn.
    """
    if ":" in name:
        return _from_user(name, options)
    if name not in SOURCES:
        raise SpecError(
            "task.dataset", f"there is no data set {name!r}{nearest(name, names())}; use one of {', '.join(names())}"
        )
    if options:
        raise SpecError(f"task.dataset.{next(iter(options))}", f"{name} has no options; remove it")
    source = SOURCES[name]
    key = hashlib.sha256(json.dumps([1, name, sorted(source.files.values())]).encode()).hexdigest()[:16]
    path = cache / f"{name}-{key}.arrow"
    if not path.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _write(path, source.read(root, cache / "downloads"))
        except OSError as error:
            raise SetupError(f"{cache}: can't be written ({error.strerror}); choose another --home") from None
    return _read(name, source.kind, path)


def _write(path: Path, arrays: Arrays) -> None:
    """Two columns of bytes, whole or not at all."""
    header = {
        "x": [arrays.x.dtype.str, arrays.x.shape],
        "y": [arrays.y.dtype.str, arrays.y.shape],
        "train_rows": arrays.train_rows,
        "source": arrays.source,
        "fingerprint": hashlib.sha256(arrays.x.tobytes() + arrays.y.tobytes()).hexdigest(),
    }
    columns = []
    for part in (arrays.x, arrays.y):
        flat = pa.array(np.frombuffer(np.ascontiguousarray(part), np.uint8))
        columns.append(pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat))
    batch = pa.record_batch(columns, names=["x", "y"]).replace_schema_metadata({"olfl": json.dumps(header)})
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    os.replace(scratch, path)


def _read(name: str, kind: Any, path: Path) -> Dataset:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        header = json.loads(table.schema.metadata[b"olfl"])
        parts = {}
        for column in ("x", "y"):
            values = table.column(column).chunk(0).values.to_numpy(zero_copy_only=True)
            dtype, shape = header[column]
            parts[column] = _tensor(values.view(np.dtype(dtype)).reshape(shape))
    except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: is torn ({str(error).splitlines()[0]}); delete it, it is made anew") from None
    train_rows = header["train_rows"]
    y = parts["y"]
    return Dataset(
        name=name,
        kind=kind,
        x=parts["x"],
        y=y,
        test=None if train_rows is None else torch.arange(train_rows, len(y)),
        outputs=int(y.max()) + 1 if kind == "classification" else y.shape[1],
        fingerprint=header["fingerprint"],
        source=header["source"],
    )


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on the same memory. It is read-only, and nothing here writes to a data set's rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _from_user(name: str, options: dict[str, Any]) -> Dataset:
    builder = load_builder(name, "task.dataset")
    try:
        given = builder(**options)
    except Exception as error:
        raise SpecError("task.dataset", f"{name!r} raised {type(error).__name__}: {error}; correct it") from error
    if isinstance(given, Dataset):
        return given
    if not isinstance(given, tuple) or len(given) != 2:
        raise SpecError("task.dataset", f"{name!r} must give a Dataset or (x, y), but gave a {type(given).__name__}")
    try:
        x, y = torch.as_tensor(given[0]), torch.as_tensor(given[1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError("task.dataset", f"{name!r} gave no arrays: {error}") from None
    if x.dim() not in (2, 4) or len(x) != len(y) or len(x) == 0 or y.dim() not in (1, 2):
        raise SpecError(
            "task.dataset",
            f"{name!r} gave x of shape {tuple(x.shape)}, y of shape {tuple(y.shape)}; x must be rows (N, D) or images "
            "(N, channels, height, width), y classes (N,) or targets (N, C), N the same and above 0",
        )
    classes = not y.is_floating_point()
    x = x if x.dtype == torch.uint8 and x.dim() == 4 else x.to(torch.float32)
    y = y.to(torch.int64) if classes else y.to(torch.float32).reshape(len(y), -1)
    if not torch.isfinite(x).all() or not torch.isfinite(y).all():
        raise SpecError("task.dataset", f"{name!r} gave NaN or infinity; remove or fill those rows")
    if classes and (y.dim() != 1 or int(y.min()) < 0):
        raise SpecError("task.dataset", f"{name!r}: classes must be a vector of numbers from 0; correct y")
    content = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    return Dataset(
        name=name,
        kind="classification" if classes else "regression",
        x=x,
        y=y,
        test=None,
        outputs=int(y.max()) + 1 if classes else y.shape[1],
        fingerprint=content,
        source=name,
    )
