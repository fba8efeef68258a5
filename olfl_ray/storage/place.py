"""From what a person writes (a path or a URL) to the storage that it names."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from olfl_ray.errors import SetupError
from olfl_ray.storage.local import LocalStorage
from olfl_ray.storage.protocol import Storage

__all__ = ["open_storage"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """The storage that a path or URL names; nothing is made or looked up before its first use.

    Args:
        url: A path (`~` is the user's home) or `file:///path`.

    Raises:
        SetupError: The URL names no folder, a folder of another host, or a storage of another kind.
    """
    text = os.fspath(url)
    if not text.strip():
        raise SetupError("storage: the place is empty; give a folder's path or a file:///path URL")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return LocalStorage(text)
    if scheme[1].lower() != "file":
        raise SetupError(
            f"storage: {text!r} has the scheme {scheme[1]!r}, but studies are kept on a local or shared disk;"
            " give a folder's path or a file:///path URL"
        )
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SetupError(f"storage: {text!r} must be file:///absolute/path, with three slashes and no host name")
    return LocalStorage(unquote(parts.path))
