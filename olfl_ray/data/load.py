"""A data set by its name, built-in or a user's; loaded once a process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.prepared import prepare, read_prepared
from olfl_ray.data.sources import SOURCES
from olfl_ray.errors import SpecError
from olfl_ray.plugins import load_builder, nearest

__all__ = ["describe", "forget", "load", "names"]

KEPT = 2
"""Data sets that a process keeps loaded."""
_loaded: dict[tuple[Hashable, ...], Dataset] = {}


def names() -> list[str]:
    """Names of the built-in data sets."""
    return sorted(SOURCES)


def describe(root: Path | None) -> list[tuple[str, str, int, tuple[int, ...], str]]:
    """Name, kind, rows, shape of a row, and where it is found, of each built-in data set.

    Args:
        root: Folder of given files (`OLFL_DATA`), or None.
    """
    found = []
    for name, source in sorted(SOURCES.items()):
        if not source.files:
            where = "bundled with scikit-learn"
        elif root is not None and all((root / file).exists() for file in source.files):
            where = str(root)
        else:
            where = "download, or OLFL_DATA" if source.downloads else "OLFL_DATA"
        found.append((name, source.kind, source.rows, source.shape, where))
    return found


def load(name: str, options: dict[str, Any], *, cache: Path, root: Path | None) -> Dataset:
    """Load a data set, preparing it first where that was not done yet; the same one the next time (see `forget`).

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
    path = prepare(name, cache=cache, root=root)
    found = path.stat()
    wanted = str(path), found.st_ino, found.st_mtime_ns, found.st_size
    return _kept(wanted, lambda: read_prepared(name, path))


def forget() -> None:
    """Load data sets anew from now on: a user's builder may give others than it did."""
    _loaded.clear()


def _kept(wanted: tuple[Hashable, ...], make: Callable[[], Dataset]) -> Dataset:
    """What this process has loaded before, for trials that follow each other: no second call, no second checksum."""
    if wanted not in _loaded:
        while len(_loaded) >= KEPT:
            del _loaded[next(iter(_loaded))]
        _loaded[wanted] = make()
    return _loaded[wanted]


def _from_user(name: str, options: dict[str, Any]) -> Dataset:
    """What a user's builder gives, once a process."""
    builder = load_builder(name, "task.dataset", (Dataset, tuple))
    return _kept((builder, json.dumps(options, sort_keys=True, default=repr)), lambda: _built(name, builder, options))


def _built(name: str, builder: Callable[..., Any], options: dict[str, Any]) -> Dataset:
    """What a builder gives, checked; arrays become tensors of the types that training needs."""
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
