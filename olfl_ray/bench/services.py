"""Real services on loopback for benchmarks and tests: MLflow servers, PostgreSQL; ended by their process ids."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MlflowServer", "free_port", "postgres", "postgres_programs"]

START_SECONDS = 90.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """An MLflow server that can be killed and started again on the same port and store.

    Args:
        store: Its backend store's URI.
        folder: Its artifacts and log.
    """

    def __init__(self, store: str, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._store, "--workers", "1"),
            *("--artifacts-destination", (self._folder / "artifacts").as_uri()),
            *("--host", "127.0.0.1", "--port", str(self._port)),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        if wait:
            _wait_for(self._answers, f"the MLflow server at {self.uri}", self._folder / "server.log")

    def kill(self) -> None:
        """End it and its workers at once, as a lost machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def postgres_programs() -> Path | None:
    """Folder of PostgreSQL's server programs; None where they are not installed."""
    on_path = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in (*on_path, *debian) if (folder / "initdb").exists()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server with an empty database on loopback; it refuses root, and then runs as the user `postgres`.

    Yields:
        The database's SQLAlchemy URI.
    """
    programs = postgres_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's server programs are not installed")
    port, user = free_port(), "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="olfl-postgres-") as scratch:  # its user may not see the caller's folders
        folder = Path(scratch)
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data, log = folder / "data", folder / "postgres.log"
        initialise = [str(programs / "initdb"), "-D", str(data), "-U", "olfl", "--auth=trust", "--no-sync"]
        subprocess.run(initialise, check=True, capture_output=True, user=user, cwd=folder)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
        with log.open("ab") as output:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options], stdout=output, stderr=output, user=user, cwd=folder
            )
        try:
            ask = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "olfl", "-d", "postgres"]
            _wait_for(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, "PostgreSQL", log)
            yield f"postgresql+psycopg://olfl@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.wait()


def _wait_for(ready: Callable[[], bool], what: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > end:
            tail = log.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"{what} did not start within {START_SECONDS:g} s; its log ends: {tail}")
        time.sleep(0.2)
