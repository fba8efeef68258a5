"""Files of a data set: found and checked under OLFL_DATA, or downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from olfl_ray.errors import DataError
from olfl_ray.tasks import Head

__all__ = ["Arrays", "Files", "Source", "downloading", "fetch", "find"]

TIMEOUT_SECONDS = 10.0
"""A download is given up if its server sends nothing for this long."""

Files = dict[str, str]
"""Path under OLFL_DATA -> SHA-256 of the content, or MD5 where the publisher gives only that."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A data set as arrays: `x` (N, ...), `y` (N,) integers or (N, C) floats, number of training examples, source.

    NaN in x is a missing value. `classes` are the names of classes or labels; empty: their numbers. Of a data set with several
    tasks, y has the columns of its `heads`, classes one-hot.
    """

    x: np.ndarray
    y: np.ndarray
    train_rows: int | None
    source: str
    classes: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A built-in data set: its kind, size, shape, reader and files, and whether it can be downloaded instead."""

    kind: str
    rows: int
    shape: tuple[int, ...]
    read: Callable[[Path | None, Path], Arrays]
    files: Files
    downloads: bool = True


def find(root: Path | None, files: Files) -> list[bytes] | None:
    """The files under OLFL_DATA, checked; None if none of them is there.

    Raises:
        DataError: One is missing, truncated or altered.
    """
    if root is None or not any((root / name).exists() for name in files):
        return None
    contents = []
    for name, wanted in files.items():
        path = root / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; put the file there, or unset OLFL_DATA to download the data set"
            ) from None
        if (wrong := _difference(content, wanted)) is not None:
            raise DataError(
                f"{path}: {wrong}; it is truncated or altered: copy it again, or unset OLFL_DATA to download the data set"
            )
        contents.append(content)
    return contents


@contextlib.contextmanager
def downloading(name: str, root: Path | None, files: Files) -> Iterator[None]:
    """Turn any failure of a download, a silent server included, into a message that names both ways to get the data set.

    Raises:
        DataError: The download failed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        here = "is not here" if root is None else f"is not in OLFL_DATA={root}"
        raise DataError(
            f"task.dataset: {name} {here}: set OLFL_DATA to a folder with {', '.join(files)}; or run "
            f"`olfl data prepare {name}` on a machine with internet access (the download failed: {reason})"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def fetch(url: str, wanted: str) -> bytes:
    """A file from the internet, checked.

    Raises:
        DataError: Its checksum is not `wanted`.
        OSError: It can't be read.
    """
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
    if (wrong := _difference(content, wanted)) is not None:
        raise DataError(f"{url}: {wrong}")
    return content


def _difference(content: bytes, wanted: str) -> str | None:
    """A description of a checksum mismatch; None if the checksum matches."""
    kind = "MD5" if len(wanted) == 32 else "SHA-256"
    digest = hashlib.new(kind.replace("-", ""), content, usedforsecurity=False).hexdigest()
    if digest == wanted:
        return None
    return f"has {kind} {digest[:16]}… ({len(content)} bytes), expected {wanted[:16]}…"
