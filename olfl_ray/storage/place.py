"""From a path or a URL to the storage that it names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from olfl_ray.errors import SetupError
from olfl_ray.storage.local import LocalStorage
from olfl_ray.storage.protocol import Storage

__all__ = ["HEARSAY", "POINTER", "is_hearsay", "is_relative", "open_folder", "open_storage"]

POINTER = "storage.url"
"""File in a folder that names the storage which stands for it: a URL in its first line."""
HEARSAY = "found in MLflow: for reading alone"
"""Second line of a pointer that no user gave."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """The storage that a path or URL names; nothing is made or looked up before its first use.

    Args:
        url: A path (`~` is the user's home), `file:///path`, `s3://bucket/folder` or `gs://bucket/folder`.

    Raises:
        SetupError: The URL names no folder, a folder of another host, or a storage of another kind.
    """
    text = os.fspath(url)
    if not text.strip():
        raise SetupError("storage: the location is empty; give a folder's path or a file:///path URL")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return LocalStorage(text)
    if scheme[1].lower() in ("s3", "gs"):
        from olfl_ray.storage.objects import ObjectStorage  # A machine that keeps to its disk needs no client.

        return ObjectStorage(text)
    if scheme[1].lower() != "file":
        raise SetupError(
            f"storage: the scheme {scheme[1]!r} is not supported; give a folder's path, or a"
            " file:///path, s3://bucket/folder or gs://bucket/folder URL"
        )
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SetupError(f"storage: {text!r} must be file:///absolute/path, with three slashes and no host name")
    return LocalStorage(unquote(parts.path))


def is_relative(url: str) -> bool:
    """Whether a text names a folder by a path that depends on the folder that it is looked up from."""
    return bool(url.strip()) and _SCHEME.match(url) is None and not url.startswith(("/", "~"))


def open_folder(folder: Path) -> Storage:
    """A folder as a storage, or the one that its pointer names, by a relative path from there perhaps.

    Raises:
        SetupError: The pointer names no storage.
    """
    pointer = folder / POINTER
    try:
        location = _lines(pointer)[0]
        return open_storage(os.path.normpath(folder / location) if is_relative(location) else location)
    except (FileNotFoundError, NotADirectoryError):
        return open_storage(folder)
    except (OSError, ValueError, SetupError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"{pointer}: names no storage ({reason}); write the storage's URL into it") from None


def is_hearsay(folder: Path) -> bool:
    """Whether a folder's pointer came from somebody who can write to MLflow, and from no user of this home folder."""
    try:
        return HEARSAY in _lines(folder / POINTER)[1:]
    except (OSError, ValueError):
        return False


def _lines(pointer: Path) -> list[str]:
    """The lines of a pointer. Raises `FileNotFoundError` where there is none, `SetupError` where it is no file."""
    content = LocalStorage(pointer.parent).read(pointer.name).decode()
    return [line.strip() for line in content.splitlines()] or [""]
