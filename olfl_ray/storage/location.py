"""From a path or a URL to the storage that it names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from olfl_ray.errors import SetupError
from olfl_ray.storage.local import LocalStorage
from olfl_ray.storage.protocol import Storage

__all__ = ["POINTER", "UNTRUSTED", "is_relative", "is_untrusted", "open_folder", "open_storage"]

POINTER = "storage.url"
"""File in a folder that redirects to another storage: its first line is that storage's URL."""
UNTRUSTED = "found in MLflow: for reading alone"
"""Second line of a pointer that came from MLflow, not from the user."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """The storage that a path or URL names; nothing is created or accessed before its first use.

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
        from olfl_ray.storage.objects import ObjectStorage  # optional: not needed with local storage

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
    """Whether a location is a path relative to the current folder."""
    return bool(url.strip()) and _SCHEME.match(url) is None and not url.startswith(("/", "~"))


def open_folder(folder: Path) -> Storage:
    """A folder as a storage, or the storage that its pointer names, which may be a path relative to the folder.

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


def is_untrusted(folder: Path) -> bool:
    """Whether a folder's pointer came from somebody with write access to MLflow, not from the owner of this home folder."""
    try:
        return UNTRUSTED in _lines(folder / POINTER)[1:]
    except (OSError, ValueError):
        return False


def _lines(pointer: Path) -> list[str]:
    """The lines of a pointer. Raises `FileNotFoundError` if there is none, `SetupError` if it is not a file."""
    content = LocalStorage(pointer.parent).read(pointer.name).decode()
    return [line.strip() for line in content.splitlines()] or [""]
