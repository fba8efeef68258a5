"""Errors of the system and of libraries that a user can fix: the cause and the next move, in one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator

__all__ = ["mendable"]

FULL, LIMIT = "free disk space and start again: earlier data is intact", "raise that limit, or run fewer trials at once"
SYSTEM = {
    errno.EACCES: "grant yourself access, or choose another location",
    errno.EDQUOT: "free space within your quota and start again",
    errno.EEXIST: "move that file away, or choose another location",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), or choose another location",
    errno.EIO: "check that disk, or choose another location",
    errno.EISDIR: "it is a folder: name a file",
    errno.EMFILE: "raise the limit on open files: ulimit -n 4096",
    errno.ENAMETOOLONG: "choose a shorter path or name",
    errno.ENFILE: "end other programs: this machine's limit on open files is reached",
    errno.ENOMEM: "free memory, or run fewer trials at once (concurrency)",
    errno.ENOSPC: FULL,
    errno.ELOOP: "fix the links that point to each other",
    errno.ENOTDIR: "a file is where a folder is needed: move it, or choose another location",
    errno.EPERM: "grant yourself access, or choose another location",
    errno.EROFS: "choose a writable location",
    errno.ESTALE: "mount that network disk again",
    errno.ETXTBSY: "wait until that program has ended",
    errno.EADDRINUSE: "choose another port",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
    errno.ECONNREFUSED: "start that server, or correct its address",
    errno.ECONNRESET: "check that the server still runs, and start again",
    errno.EHOSTUNREACH: "check the network, or correct the address",
    errno.ENETUNREACH: "check the network, or correct the address",
    errno.ETIMEDOUT: "check the network and the server, and start again",
    errno.EAGAIN: "raise the limit on processes (`ulimit -u`), or end others",
}
"""Next moves by what the system says."""
MEMORY = "take a smaller task.batch_size or network, fewer trials at once (concurrency), or a larger machine"
WORDS = {
    "can't allocate memory": MEMORY,
    "out of memory": MEMORY,
    "can't start new thread": "raise the limit on processes (`ulimit -u`), or end others",
    "database or disk is full": FULL,
    "disk I/O error": "check the disk of that database, or choose another location",
    "readonly database": "grant yourself access to that database, or choose another location",
    "unable to open database file": "grant yourself access to that database, or choose another location",
    "database is locked": "end the other program that holds that database, or wait for it",
    "database disk image is malformed": "move that database away: the next start makes it from the ledger",
    "file is not a database": "move that file away, or name another",
    "No usable temporary directory": "set TMPDIR to a folder that can be written",
}
"""Next moves by a library's message, where its error has no specific type."""
KINDS = {
    "ray.": "check that the cluster, or this machine, has free memory, disk space and processes, and start again",
    "mlflow.": "check the tracking store and its permissions, and start again",
    "sqlalchemy.": "check that the database is intact and reachable, and start again",
    "obstore.": "check that the object store is reachable and permits it, and start again",
    "pyarrow.": "the file is corrupt: restore it, or remove it so that it is made again",
    "requests.": "check the network and the server, and start again",
    "urllib.": "check the network and the server, and start again",
    "ssl.": "check the server's certificate and this machine's clock",
    "zipfile.": "the file is corrupt: restore it, or remove it so that it is fetched again",
    "zlib.": "the file is corrupt: restore it, or remove it so that it is fetched again",
    "gzip.": "the file is corrupt: restore it, or remove it so that it is fetched again",
}
"""Next moves by the package of an error's class."""


def mendable(error: BaseException) -> str | None:
    """What to say of an error; None where only the project can mend it.

    Args:
        error: Of the system or a library, perhaps raised from another.
    """
    return next((said for link in _links(error) if (said := _said(link))), None)


def _links(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the first cause first."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return reversed(chain)


def _said(error: BaseException) -> str | None:
    text = " ".join(str(error).split())[:300]
    where = f"{type(error).__module__}."
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno in SYSTEM:
        place = ", ".join(str(file) for file in (error.filename, error.filename2) if file is not None)
        return f"{place + ': ' if place else ''}{error.strerror}; {SYSTEM[error.errno]}"
    if isinstance(error, MemoryError):
        return f"the memory of this machine is full{': ' + text if text else ''}; {MEMORY}"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!a} can't be written in the encoding {error.encoding}; set LC_ALL=C.UTF-8"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("olfl_ray"):
        return (
            f"the package {error.name} is not installed; install it (pip install 'olfl_ray[bench]' has the benchmarks')"
        )
    for words, move in WORDS.items():
        if words in text:
            return f"{text}; {move}"
    for package, move in KINDS.items():
        if where.startswith(package) or (isinstance(error, OSError) and where == "socket."):
            return f"{package.rstrip('.')} ({name}): {text}; {move}"
    return None
