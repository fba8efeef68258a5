"""A folder of results that appears atomically: built under another name, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from olfl_ray.errors import SetupError
from olfl_ray.storage.local import LocalStorage, make_folder, refuse_link
from olfl_ray.storage.protocol import TEMPORARY

__all__ = ["fresh_folder"]


@contextmanager
def fresh_folder(folder: Path) -> Iterator[LocalStorage]:
    """A new, empty folder that replaces an older one once it is complete; after an error nothing has changed.

    Nothing is written through what the old folder contains: it may have links, if it came from someone else.

    Args:
        folder: Its final path; an older folder of that name is deleted with its contents.

    Yields:
        The new folder.

    Raises:
        SetupError: The folder or its parent is a link, or can't be written.
    """
    for part in (folder.parent, folder):
        refuse_link(part)
    draft, old = (
        folder.with_name(f"{TEMPORARY}{kind}-{os.getpid()}-{secrets.token_hex(8)}") for kind in ("new", "old")
    )
    try:
        make_folder(folder.parent)
        make_folder(draft)
        yield LocalStorage(draft)
        if folder.exists():
            os.rename(folder, old)
        os.rename(draft, folder)
    except OSError as error:
        raise SetupError(
            f"{folder}: can't be written ({error.strerror}); move it away, or grant yourself access"
        ) from None
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
