"""Local disk: temporary file, fsync, rename or link, fsync of the folder."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from olfl_ray.errors import SetupError
from olfl_ray.storage.protocol import TEMPORARY, check_key

__all__ = ["LocalStorage", "expanded", "make_folder", "refuse_link", "replace_file", "writable_folder"]

_NEXT_MOVE = {
    errno.EACCES: "grant yourself access, or choose another location",
    errno.EDQUOT: "free space within your quota and start again",
    errno.EEXIST: "a file is where a folder is needed: move it, or choose another location",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), or choose another location",
    errno.ENOSPC: "free disk space and start again: earlier data is intact",
    errno.ENOTDIR: "a file is where a folder is needed: move it, or choose another location",
    errno.EOPNOTSUPP: "this file system has no hard links, which `create` needs: choose another location",
    errno.EPERM: "grant yourself access, or choose a location on a file system with hard links",
    errno.EROFS: "choose a writable location",
}
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class LocalStorage:
    """A folder on a local or network disk, created at the first write.

    A process that is killed while it writes leaves at most one temporary file, which is never listed or read.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = expanded(root).absolute()
        self.url = self.root.as_uri()

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    def read(self, key: str) -> bytes:
        path = self._path(key)
        with self.open(key) as file, _explained(path, "read"):
            return file.read()

    def write(self, key: str, data: bytes) -> None:
        self.write_all({key: data})

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        paths = {self._own(key): data for key, data in objects.items()}
        for path, data in paths.items():
            with _explained(path, "write"), _temporary(path, data) as temporary:
                os.replace(temporary, path)
        for folder in {path.parent for path in paths}:
            with _explained(folder, "write"):
                _sync_folder(folder)

    def create(self, key: str, data: bytes) -> bool:
        path = self._own(key)
        if self.exists(key):
            return False
        with _explained(path, "create"), _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent)
        return True

    def keys(self, prefix: str = "") -> list[str]:
        if prefix:
            check_key(prefix.removesuffix("/"))
        top = self.root / prefix.rpartition("/")[0]
        found = []
        for folder, _, names in os.walk(top, onerror=_raise_unless_absent):
            inside = Path(folder).relative_to(self.root)
            found += [(inside / name).as_posix() for name in names if not name.startswith(TEMPORARY)]
        return sorted(key for key in found if key.startswith(prefix))

    def folders(self) -> list[str]:
        with _explained(self.root, "list"):
            try:
                return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
            except _ABSENT:
                return []

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with _explained(path, "look for"):
            return path.is_file()

    def delete(self, key: str) -> None:
        path = self._own(key)
        with _explained(path, "delete"):
            try:
                path.unlink()
            except _ABSENT:
                return
            _sync_folder(path.parent)

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )  # opening a named pipe without a writer would block
            file = os.fdopen(descriptor, "rb")
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                file.close()
                raise SetupError(f"{path}: is a pipe or a device, not a file; move it away")
            return file
        except _ABSENT as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        except OSError as error:
            raise _refused(path, "read", error) from error

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _own(self, key: str) -> Path:
        """The path to write. No link inside the folder may lead outside; a link as the last component is replaced."""
        path = self._path(key)
        for folder in path.relative_to(self.root).parents:
            if folder != Path():
                refuse_link(self.root / folder)
        return path


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link in place of a folder that this package writes to.

    Raises:
        SetupError: It is one.
    """
    if path.is_symlink():
        raise SetupError(f"{path}: is a link, and nothing is written through links; replace it with a folder")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose `~` or `~user` is that user's home.

    Raises:
        SetupError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SetupError(f"{path}: there is no home folder of that user; use an absolute path") from None


def writable_folder(path: str | os.PathLike[str], name: str, *, private: bool = False) -> Path:
    """The absolute path of a folder, created if necessary, after a test that files can be created in it.

    Args:
        path: The folder.
        name: What the user gave it by, for the message: an option, for example.
        private: Whether new folders are private to this user (mode 700), whatever the umask.

    Raises:
        SetupError: Nothing can be written there.
    """
    folder = expanded(path).absolute()
    try:
        make_folder(folder, 0o700 if private else 0o777)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SetupError(f"{name}: {folder} can't be written ({reason}); choose another folder") from None
    return folder


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that the user named, complete or not at all: until then an older one stays as it is.

    Nothing is written through a link, which is replaced. A pipe or a device is written to.

    Raises:
        OSError: It can't be written, or its folder does not exist: that may be a mistyped path.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)


@contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    """Replace a bare `OSError` by what the system refused, and the next move."""
    try:
        yield
    except OSError as error:
        raise _refused(path, verb, error) from error


def _refused(path: Path, verb: str, error: OSError) -> SetupError:
    reason = error.strerror or str(error)
    move = _NEXT_MOVE.get(error.errno or 0, "check that disk, or choose another location")
    return SetupError(f"{path}: cannot {verb} it ({reason}); {move}")


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file next to `path` with these bytes, removed afterwards."""
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Create a folder and its parents, each as durable as the file that will be in it.

    A new folder has no more permissions than its parent, whatever the umask: inside a private folder it is private.

    Args:
        folder: The folder.
        mode: At most these permissions.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode=mode & folder.parent.stat().st_mode, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, _ABSENT):
        raise _refused(Path(error.filename), "list", error) from error
