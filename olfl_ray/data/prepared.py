"""A built-in data set as one Arrow file, prepared once and then memory-mapped; each cluster node fetches it once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.finding import Arrays
from olfl_ray.data.sources import SOURCES
from olfl_ray.errors import DataError, SetupError
from olfl_ray.storage import LocalStorage, Storage, expanded, make_folder
from olfl_ray.tasks import task_of

__all__ = ["CACHE", "node_cache", "prepare", "read_prepared", "share"]

CACHE = "OLFL_CACHE"
"""Environment variable that names a node's folder of prepared data sets."""

FORM = 2
"""Format version of the prepared files; it is part of their names."""


def prepare(name: str, *, cache: Path, root: Path | None) -> Path:
    """The prepared file of a built-in data set, created if it does not exist.

    Args:
        name: Built-in name.
        cache: Folder of prepared data sets.
        root: Folder of given files (`OLFL_DATA`), or None.

    Raises:
        DataError: The data set can't be found.
        SetupError: The folder can't be written.
    """
    path = cache / file_name(name)
    if not path.exists():
        try:
            make_folder(cache)
            # A folder of its own, so that concurrent processes do not collide and no partial file remains.
            with tempfile.TemporaryDirectory(prefix="preparing-", dir=cache) as folder:
                complete = Path(folder) / path.name
                _write(complete, SOURCES[name].read(root, Path(folder)))
                os.replace(complete, path)
        except OSError as error:
            reason = error.strerror or error
            raise SetupError(
                f"{cache}: can't be written ({reason}); free disk space, or choose another `home=`"
            ) from None
    return path


def file_name(name: str) -> str:
    """Name of a data set's prepared file; another format version or other sources give another name."""
    key = hashlib.sha256(json.dumps([FORM, name, sorted(SOURCES[name].files.values())]).encode()).hexdigest()
    return f"{name}-{key[:16]}.arrow"


def share(name: str, *, cache: Path, root: Path | None, storage: Storage) -> None:
    """Upload a prepared data set to where other machines can read it, unless it exists already.

    Args:
        name: Built-in name.
        cache: As for `prepare`.
        root: As for `prepare`.
        storage: Storage of shared data sets.

    Raises:
        UserError: It can't be prepared or uploaded.
    """
    path = prepare(name, cache=cache, root=root)
    if not storage.exists(path.name):
        storage.write(path.name, path.read_bytes())  # another driver would write the same bytes


def node_cache(name: str, drivers: Path, shared: Storage) -> Path:
    """The folder of prepared data sets on this node, with the data set `name` in it.

    It is `OLFL_CACHE` if that is set; else the driver's own folder, if the data set is there (on the driver's machine, or in
    a shared folder); else one of this user's. If many processes want the same data set, one fetches it.

    Args:
        name: Name of a data set; a user's own comes from its builder and is not fetched.
        drivers: The driver's folder.
        shared: Storage of shared data sets.

    Raises:
        SetupError: The data set is not in the shared storage, or the folder can't be written.
    """
    if name not in SOURCES:
        return drivers
    if os.environ.get(CACHE):
        cache = expanded(os.environ[CACHE]).absolute()
    elif LocalStorage(drivers).exists(file_name(name)):
        return drivers
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "olfl"
    _fetch(name, cache, shared)
    return cache


def _fetch(name: str, cache: Path, shared: Storage) -> None:
    file = file_name(name)
    here = LocalStorage(cache)
    if here.exists(file):
        return
    try:
        make_folder(cache)
        lock = (cache / f"{file}.lock").open("a")
    except OSError as error:
        raise SetupError(
            f"{cache}: can't be written ({error.strerror}); free disk space, or name another folder by {CACHE} on that node"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not here.exists(file):
            try:
                here.write(file, shared.read(file))
            except FileNotFoundError:
                raise SetupError(
                    f"{shared.url}/{file}: the data set is missing; start the study again, which uploads it again"
                ) from None


def _write(path: Path, arrays: Arrays) -> None:
    """Write two columns of bytes as one Arrow file."""
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


def read_prepared(name: str, path: Path) -> Dataset:
    """A prepared data set, memory-mapped and checked.

    Raises:
        DataError: The file is truncated.
    """
    kind = SOURCES[name].kind
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
        raise DataError(
            f"{path}: is truncated or corrupt ({str(error).splitlines()[0]}); delete it to create it again"
        ) from None
    if check.hexdigest() != header["fingerprint"]:
        raise DataError(f"{path}: its checksum does not match its content; delete it to create it again")
    train_rows = header["train_rows"]
    y = parts["y"]
    return Dataset(
        name=name,
        kind=kind,
        x=parts["x"],
        y=y,
        test=None if train_rows is None else torch.arange(train_rows, len(y)),
        outputs=task_of(kind).outputs(y),
        fingerprint=header["fingerprint"],
        source=header["source"],
    )


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on the same memory. It is read-only: nothing in this project writes to a data set's tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
