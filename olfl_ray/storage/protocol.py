"""What every storage guarantees: objects are written atomically, and `create` has one winner."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO, Protocol, runtime_checkable

__all__ = ["TEMPORARY", "Storage", "check_key"]

TEMPORARY = ".tmp-"
"""First characters of the names of temporary files, which no key may use."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@runtime_checkable
class Storage(Protocol):
    """Named bytes in one location: what the ledger, leases and checkpoints rely on.

    A key is a relative POSIX path such as `ledger/000000001.json`. Every method raises `ValueError` for a key
    that breaks the rules of `check_key`, and `SetupError`, naming the object's location, if the storage refuses
    (no permission, no space, read-only). When `write` or `create` returns, the bytes survive a power cut; when
    one raises `SetupError`, the bytes may have been written nevertheless.

    Attributes:
        url: Where it is; `open_storage(url)` opens the same storage again.
    """

    url: str

    def read(self, key: str) -> bytes:
        """Bytes of one object. Raises `FileNotFoundError` when it is absent."""

    def write(self, key: str, data: bytes) -> None:
        """Write an object, replacing an older one; readers see the old bytes or the new, never a mixture."""

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write several objects, each as `write` does, but faster than one after another; in no particular order."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; of many concurrent callers exactly one gets True."""

    def keys(self, prefix: str = "") -> list[str]:
        """Sorted keys that start with `prefix` (a string, not necessarily a folder)."""

    def folders(self) -> list[str]:
        """Sorted first components of keys that have several; on a disk, also names of empty folders."""

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def delete(self, key: str) -> None:
        """Remove an object; no error when it is absent."""

    def open(self, key: str) -> BinaryIO:
        """Seekable reader of one object, for the caller to close. Raises `FileNotFoundError` when absent."""


def check_key(key: str) -> str:
    """Return the key if it is a relative POSIX path that stays inside its storage.

    Raises:
        ValueError: It is empty or absolute, has an empty part, `.`, `..`, a control character such as NUL, or a
            temporary file's name.
    """
    for part in key.split("/"):
        if part in ("", ".", "..") or part.startswith(TEMPORARY) or _CONTROL.search(part):
            raise ValueError(
                f"key {key!r}: a key is a relative path of non-empty parts without `.`, `..`, control characters"
                f" and a leading `{TEMPORARY}`, but one part is {part!r}"
            )
    return key
