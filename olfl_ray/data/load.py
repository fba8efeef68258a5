"""Data sets prepared once into Arrow files, memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.finding import Arrays
from olfl_ray.data.sources import SOURCES
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
            where = "download, or OLFL_DATA" if source.downloads else "OLFL_DATA"
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
    key = hashlib.sha256(json.dumps([2, name, sorted(source.files.values())]).encode()).hexdigest()[:16]
    path = cache / f"{name}-{key}.arrow"
    if not path.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Of its own, so that processes that prepare at the same time can't meet, and nothing half done stays.
            with tempfile.TemporaryDirectory(prefix="preparing-", dir=cache) as folder:
                whole = Path(folder) / path.name
                _write(whole, source.read(root, Path(folder)))
                os.replace(whole, path)
        except OSError as error:
            reason = error.strerror or error
            raise SetupError(f"{cache}: can't be written ({reason}); make room, or choose another --home") from None
    return _read(name, source.kind, path)


def _write(path: Path, arrays: Arrays) -> None:
    """Two columns of bytes in one Arrow file."""
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
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read(name: str, kind: Any, path: Path) -> Dataset:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        header = json.loads(table.schema.metadata[b"olfl"])
        parts, check = {}, hashlib.sha256()
        for column in ("x", "y"):
            values = table.column(column).chunk(0).values.to_numpy(zero_copy_only=True)
            dtype, shape = header[column]
            check.update(values)
            parts[column] = _tensor(values.view(np.dtype(dtype)).reshape(shape))
    except (pa.ArrowInvalid, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: is torn ({str(error).splitlines()[0]}); delete it, it is made anew") from None
    if check.hexdigest() != header["fingerprint"]:
        raise DataError(f"{path}: its checksum does not match its content; delete it, it is made anew")
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
    """What a user's builder gives, checked; arrays become tensors of the types that training needs."""
    builder = load_builder(name, "task.dataset")
    try:
        given = builder(**options)
    except (Exception, SystemExit) as error:
        raise SpecError("task.dataset", f"{name!r} raised {type(error).__name__}: {error}; correct it") from error
    if not isinstance(given, Dataset) and (not isinstance(given, tuple) or len(given) != 2):
        raise SpecError("task.dataset", f"{name!r} must give a Dataset or (x, y), but gave a {type(given).__name__}")
    x, y = _user_rows(name, *((given.x, given.y) if isinstance(given, Dataset) else given))
    kind: Literal["classification", "regression"] = "regression" if y.is_floating_point() else "classification"
    outputs = int(y.max()) + 1 if kind == "classification" else y.shape[1]
    if not isinstance(given, Dataset):
        content = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
        return Dataset(
            name=name, kind=kind, x=x, y=y, test=None, outputs=outputs, fingerprint=content, source=f"builder {name}"
        )
    if given.kind != kind or given.outputs < outputs or (kind == "regression" and given.outputs != outputs):
        raise SpecError(
            "task.dataset",
            f"{name!r} gave a Dataset of kind {given.kind} with outputs={given.outputs}, but its y is of kind {kind} "
            f"with {outputs}; correct them (classes are integers, targets are floats)",
        )
    rows = given.test
    if rows is not None and (
        rows.dim() != 1 or rows.is_floating_point() or not set(rows.tolist()) <= set(range(len(y))) or _repeats(rows)
    ):
        raise SpecError(
            "task.dataset", f"{name!r}: test must be distinct row numbers from 0 to {len(y) - 1}; correct it"
        )
    return replace(given, x=x, y=y)


def _repeats(rows: Tensor) -> bool:
    return len(rows.unique()) < len(rows)


def _user_rows(name: str, given_x: Any, given_y: Any) -> tuple[Tensor, Tensor]:
    """x as uint8 images or float32, y as int64 classes (N,) or float32 targets (N, C).

    Raises:
        SpecError: They are no such arrays.
    """
    try:
        x, y = (torch.as_tensor(part).detach().cpu() for part in (given_x, given_y))
    except (TypeError, ValueError, RuntimeError) as error:
        raise SpecError("task.dataset", f"{name!r} gave no arrays of numbers: {error}; correct it") from None
    if x.dim() not in (2, 4) or y.dim() not in (1, 2) or len(x) != len(y) or 0 in (*x.shape, *y.shape):
        raise SpecError(
            "task.dataset",
            f"{name!r} gave x of shape {tuple(x.shape)}, y of shape {tuple(y.shape)}; x must be rows (N, D) or images "
            "(N, channels, height, width), y classes (N,) or targets (N, C), N the same, no size 0; reshape them",
        )
    if x.is_complex() or y.is_complex():
        raise SpecError("task.dataset", f"{name!r} gave complex numbers ({x.dtype}, {y.dtype}); give real ones")
    classes = not y.is_floating_point()
    x = x if x.dtype == torch.uint8 and x.dim() == 4 else x.to(torch.float32)
    y = y.to(torch.int64) if classes else y.to(torch.float32).reshape(len(y), -1)
    if not torch.isfinite(x).all() or not torch.isfinite(y).all():
        raise SpecError("task.dataset", f"{name!r} gave NaN or infinity (as float32); remove or fill those rows")
    if classes and (y.dim() != 1 or int(y.min()) < 0):
        raise SpecError(
            "task.dataset",
            f"{name!r}: integers in y are classes, a vector of numbers from 0, but its shape is {tuple(y.shape)} and its "
            f"least {int(y.min())}; correct y, or give floats for regression",
        )
    return x, y
