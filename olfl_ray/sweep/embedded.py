"""An embedded Ray for this process only: a short private folder for its sockets, logs and token, removed at its end."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import ray._private.utils
from ray._private import services
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from olfl_ray.errors import SetupError

__all__ = ["LOOPBACK", "PREFIX", "embedded_ray", "private_folder"]

LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Ray takes 127.0.0.1 for the machine's own address, and would use the network."""
PREFIX = "olfl-ray-"
LONGEST = 107 if sys.platform == "linux" else 103
"""Maximum length of a socket's path (AF_UNIX) in bytes."""
BELOW = len(f"/{PREFIX}12345678/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
ROOM = 64 * 2**20
"""Bytes needed for logs and Ray's own files."""
STORE = 128 * 2**20
"""Bytes of Ray's object store: trials exchange only short messages."""
FILES = 1024
"""Number of open files that Ray's processes need."""
ADVANCE = "--num_prestart_python_workers"
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_log = logging.getLogger(__name__)


@contextmanager
def embedded_ray(**options: Any) -> Iterator[Path]:
    """Run Ray on loopback; yields its private folder, which is removed afterwards.

    Args:
        options: Further options of `ray.init`.

    Raises:
        SetupError: This machine lacks what Ray needs, or Ray does not start; the folder then stays, with Ray's logs.
    """
    _check_open_files()
    with private_folder() as folder, _own_token(folder), _few_processes(), _same_imports():
        try:
            ray.init(
                "local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=STORE,
                _node_ip_address=LOOPBACK,
                _plasma_directory=_shared_memory(folder),
                _system_config={"enable_metrics_collection": False},  # they would be served on every interface
                _temp_dir=str(folder / "r"),
                **options,
            )
        except Exception as error:
            with suppress(Exception):
                ray.shutdown()
            kept = folder.with_name(f"{folder.name}-failed")
            with suppress(OSError):
                folder.rename(kept)
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise SetupError(
                f"Ray can't be started on this machine ({reason[:200]}); its logs are in {kept} until the next start; free "
                "memory and processes, or set RAY_ADDRESS to a running cluster"
            ) from error
        try:
            yield folder
        finally:
            ray.shutdown()


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of mode 700 in the first usable temporary folder; also removes those of killed processes.

    Raises:
        SetupError: No temporary folder is usable; with the reason for each.
    """
    refused = []
    for base in _bases():
        reason = _unfit(base)
        if reason:
            refused.append(f"{base} {reason}")
            continue
        _remove_stale(base)
        try:
            folder, held = _claimed(base)
        except OSError as error:
            refused.append(f"{base} can't be used ({error.strerror})")
            continue
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
        return
    raise SetupError(
        f"TMPDIR: no folder is usable for Ray's temporary files: {'; '.join(refused)}; set TMPDIR to a folder of at most "
        f"{LONGEST - BELOW} bytes in which you can write {ROOM // 2**20} MiB"
    )


def _bases() -> list[Path]:
    given = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    return [Path(base).absolute() for base in dict.fromkeys([*given, "/tmp", "/var/tmp"])]


def _unfit(base: Path) -> str:
    """Why Ray can't use a temporary folder; empty if it can."""
    if len(os.fsencode(base)) + BELOW > LONGEST:
        return f"is too long for a socket's path ({len(os.fsencode(base))} bytes, {LONGEST - BELOW} at most)"
    if not base.is_dir():
        return "is not a folder"
    if not os.access(base, os.W_OK | os.X_OK):
        return "can't be written"
    free = shutil.disk_usage(base).free
    return f"has only {free // 2**20} MiB free" if free < ROOM else ""


def _claimed(base: Path) -> tuple[Path, int]:
    """A new folder, locked for the lifetime of this process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:  # a network disk may not support locks
            os.close(held)
            folder.rmdir()
            raise
        with suppress(FileNotFoundError):  # another start has taken it for a dead process's folder
            if os.path.samestat(folder.stat(), os.fstat(held)):
                return folder, held
        os.close(held)


def _remove_stale(base: Path) -> None:
    """Remove this user's folders that no live process has locked."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(held).st_uid == os.getuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


@contextmanager
def _own_token(folder: Path) -> Iterator[None]:
    """A token for this Ray only, instead of one in the environment or the user's home, which Ray would share."""
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_FILE)}
    if (before[MODE] or "").lower() == "disabled":
        _log.warning(
            "%s=disabled: anyone who can reach this machine can run code in this sweep's Ray; unset it, and "
            "Ray requires a token",
            MODE,
        )
        yield
        return
    file = folder / "token"
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as written:
        written.write(secrets.token_hex(32))
    os.environ.pop(TOKEN, None)
    os.environ |= {MODE: "token", TOKEN_FILE: str(file)}
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_again()


@contextmanager
def _few_processes() -> Iterator[None]:
    """Start only the processes that trials need: no dashboard, autoscaler or collector of logs, nor workers in advance, which
    trials would not use. Each would take a second of a core, and some listen on a port.

    They are in a process group of their own: a signal that a terminal, `timeout` or a batch system sends to the driver's group
    must not end the trials before the driver has had them commit.
    """

    class Apart(services.ConsolePopen):  # type: ignore[misc]
        def __init__(self, command: list[str], *arguments: Any, **given: Any) -> None:
            lazily = [f"{ADVANCE}=0" if part.startswith(f"{ADVANCE}=") else part for part in command]
            super().__init__(lazily, *arguments, process_group=0, **given)

    def nothing(node: Node, **given: Any) -> None:
        node._webui_url = ""

    unneeded = ("start_monitor", "start_log_monitor", "start_api_server")
    # As if the dashboard were not installed: then its agent, which Ray requires, has no server and imports little.
    changes = [(services, "ConsolePopen", Apart), (ray._private.utils, "get_dashboard_dependency_error", ImportError)]
    with ExitStack() as stack:
        for owner, name, value in [*changes, *((Node, name, nothing) for name in unneeded)]:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


@contextmanager
def _same_imports() -> Iterator[None]:
    """Trials import modules from where the driver does: a program or a notebook may have added folders to `sys.path`."""
    before = os.environ.get("PYTHONPATH")
    known = {os.path.abspath(folder) for folder in (before or "").split(os.pathsep) if folder}
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix]
    added = [
        folder
        for folder in dict.fromkeys(map(os.path.abspath, filter(None, sys.path)))
        if folder not in known and os.path.isdir(folder) and not any(Path(folder).is_relative_to(base) for base in own)
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join([*([before] if before else []), *added])
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _read_again() -> None:
    """Reload Ray's cached settings and token."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _shared_memory(folder: Path, usual: Path = Path("/dev/shm")) -> str | None:
    """The location of Ray's object store: shared memory (None), or the private folder if that is missing or small."""
    try:
        enough = shutil.disk_usage(usual).free >= 2 * STORE and os.access(usual, os.W_OK | os.X_OK)
    except OSError:
        enough = False
    return None if enough else str(folder)


def _check_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # Ray raises the soft limit itself
    if hard != resource.RLIM_INFINITY and hard < FILES:
        raise SetupError(
            f"ulimit -n: only {hard} files may be open, but Ray needs {FILES}; raise it: ulimit -n {FILES}"
        )
