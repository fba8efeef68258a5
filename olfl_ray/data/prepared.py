"""A data set as one Arrow file, prepared once and then memory-mapped; each cluster node fetches it once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from olfl_ray.data.arrow_file import read_arrays, write_arrays
from olfl_ray.data.dataset import Dataset
from olfl_ray.data.dataset_file import write_dataset
from olfl_ray.data.formats import format_of
from olfl_ray.data.sources import SOURCES
from olfl_ray.errors import SetupError
from olfl_ray.spec import without_folder
from olfl_ray.storage import LocalStorage, Storage, expanded, make_folder
from olfl_ray.tasks import task_of
from olfl_ray.tasks.heads import from_plain, to_plain

__all__ = ["CACHE", "created", "file_name", "keep", "node_cache", "prepare", "read_prepared", "share"]

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
    created(path, lambda file: _from_source(name, file, root))
    return path


def created(path: Path, write: Callable[[Path], object]) -> None:
    """Create a file, complete or not at all, unless it exists.

    Raises:
        SetupError: The folder can't be written.
    """
    if path.exists():
        return
    try:
        make_folder(path.parent)
        # A folder of its own, so that concurrent processes do not collide and no partial file remains.
        with tempfile.TemporaryDirectory(prefix="preparing-", dir=path.parent) as folder:
            complete = Path(folder) / path.name
            write(complete)
            os.replace(complete, path)
    except OSError as error:
        reason = error.strerror or error
        raise SetupError(
            f"{path.parent}: can't be written ({reason}); free disk space, or choose another `home=`"
        ) from None


def file_name(name: str, options: Mapping[str, Any] | None = None, fingerprint: str = "") -> str:
    """Name of a data set's prepared file; another format version, other sources or other content give another name.

    Args:
        name: Name of the data set.
        options: Its options.
        fingerprint: Of a file's content, where it is known.

    Returns:
        The name; empty for a builder's data set, and for a file whose content is not known.
    """
    if name in SOURCES:
        key: list[Any] = [FORM, name, sorted(SOURCES[name].files.values())]
        stem = name
    elif fingerprint and format_of(name) is not None:
        stem = re.sub(r"[^\w.-]", "_", without_folder(name).replace(":", "-"))[:64]
        key = [FORM, without_folder(name), options or {}, fingerprint]
    else:
        return ""
    return f"{stem}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.arrow"


def share(
    name: str,
    *,
    cache: Path,
    root: Path | None,
    storage: Storage,
    options: Mapping[str, Any] | None = None,
    fingerprint: str = "",
) -> None:
    """Upload a prepared data set to where other machines can read it, unless it exists already. A builder's is not uploaded.

    Args:
        name: Name of the data set.
        cache: As for `prepare`.
        root: As for `prepare`.
        storage: Storage of shared data sets.
        options: As for `file_name`.
        fingerprint: As for `file_name`.

    Raises:
        UserError: It can't be prepared or uploaded.
    """
    file = file_name(name, options, fingerprint)
    if not file:
        return
    path = prepare(name, cache=cache, root=root) if name in SOURCES else cache / file
    if not storage.exists(file):
        storage.write(file, path.read_bytes())  # another driver would write the same bytes


def node_cache(
    name: str, drivers: Path, shared: Storage, options: Mapping[str, Any] | None = None, fingerprint: str = ""
) -> Path:
    """The folder of prepared data sets on this node, with the data set `name` in it.

    It is `OLFL_CACHE` if that is set; else the driver's own folder, if the data set is there (on the driver's machine, or in
    a shared folder); else one of this user's. If many processes want the same data set, one fetches it.

    Args:
        name: Name of a data set; one that comes from a builder is not fetched.
        drivers: The driver's folder.
        shared: Storage of shared data sets.
        options: As for `file_name`.
        fingerprint: As for `file_name`.

    Raises:
        SetupError: The data set is not in the shared storage, or the folder can't be written.
    """
    file = file_name(name, options, fingerprint)
    if not file:
        return drivers
    if os.environ.get(CACHE):
        cache = expanded(os.environ[CACHE]).absolute()
    elif LocalStorage(drivers).exists(file):
        return drivers
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "olfl"
    _fetch(file, cache, shared)
    return cache


def _fetch(file: str, cache: Path, shared: Storage) -> None:
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


def _from_source(name: str, path: Path, root: Path | None) -> None:
    arrays = SOURCES[name].read(root, path.parent)
    about = {"train_rows": arrays.train_rows, "source": arrays.source, "classes": arrays.classes}
    write_arrays(path, arrays.x, arrays.y, about | ({"heads": to_plain(arrays.heads)} if arrays.heads else {}))


def read_prepared(name: str, path: Path) -> Dataset:
    """A prepared built-in data set.

    Raises:
        DataError: The file is truncated.
    """
    kind = SOURCES[name].kind
    x, y, header = read_arrays(path)
    train_rows, heads = header["train_rows"], from_plain(header.get("heads", []))
    return Dataset(
        name=name,
        kind=kind,
        x=x,
        y=y,
        test=None if train_rows is None else torch.arange(train_rows, len(y)),
        outputs=task_of(kind, heads=heads).outputs(y),
        classes=tuple(header.get("classes", ())),
        heads=heads,
        fingerprint=header["fingerprint"],
        source=header["source"],
    )


def keep(dataset: Dataset, path: Path) -> None:
    """Write the prepared file of a data set that was read from a user's file or object, unless it exists.

    Raises:
        SetupError: The folder can't be written.
    """
    created(path, lambda file: write_dataset(file, dataset))
