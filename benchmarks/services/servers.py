"""Real services on loopback for benchmarks and tests: MLflow servers, PostgreSQL, S3; ended by their process ids."""

from __future__ import annotations

import http.client
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from olfl_ray.errors import SetupError

__all__ = ["MlflowServer", "free_port", "postgres", "postgres_programs", "s3_server", "wait_for"]

START_SECONDS = 90.0
ROLE, DATABASE = "mlflow", "runs"
T = TypeVar("T")

# moto checks for an object and puts it in two steps, between which another thread may put one; one request at a time
# makes a conditional put the single step that it is in a real store.
_S3_SERVER = """
import os, threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
app, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with turn:
        return app(environ, start_response)

guarded = one_at_a_time
if "OLFL_S3_KEY" in os.environ:
    from benchmarks.services.signed import signed_only
    guarded = signed_only(one_at_a_time, os.environ["OLFL_S3_KEY"], os.environ["OLFL_S3_SECRET"])
run_simple("127.0.0.1", 0, guarded, threaded=True, request_handler=MotoRequestHandler)
"""


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """An MLflow server that can be killed and started again on the same port and store.

    Args:
        store: URI of its backend store.
        folder: Folder of its log, and of its artifacts by default.
        artifacts: URL where the server stores artifacts.
        environment: Variables added to this process's environment.
    """

    def __init__(
        self, store: str, folder: Path, artifacts: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self._store, self._folder = store, folder
        self._artifacts = artifacts or (folder / "artifacts").as_uri()
        self._environment = {**(environment or {}), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it responds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._store, "--workers", "1"),
            *("--artifacts-destination", self._artifacts),
            *("--host", "127.0.0.1", "--port", str(self._port)),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self._environment}, start_new_session=True
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it responds.

        Raises:
            SetupError: It exited, or did not respond in time.
        """
        assert self._process is not None
        wait_for(self._answers, f"the MLflow server at {self.uri}", self._folder / "server.log", self._process)

    def kill(self) -> None:
        """Kill it and its workers at once, as if the machine failed."""
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
    """Folder of PostgreSQL's server programs; None if they are not installed."""
    on_path = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in (*on_path, *debian) if (folder / "initdb").exists()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server with an empty database on loopback, only for this process's user.

    It does not run as root; then it runs as the user `postgres`, in none of this process's groups. Clients have one role, which
    owns the database, may create others, and is not a superuser; its password is in a file of mode 600.

    Yields:
        The database's SQLAlchemy URI, which names the password's file.
    """
    import psycopg
    from psycopg import sql

    programs = postgres_programs()
    if programs is None:
        raise SetupError(
            "PostgreSQL's server programs are not installed; install them (Debian: apt install postgresql)"
        )
    port, admin, password = free_port(), secrets.token_hex(32), secrets.token_hex(32)
    with (
        tempfile.TemporaryDirectory(
            prefix="olfl-postgres-"
        ) as scratch,  # its user may not be able to read the caller's folders
        tempfile.TemporaryDirectory(prefix="olfl-pgpass-") as own,
    ):
        folder, passfile = Path(scratch), Path(own) / "pgpass"
        data, log, first = folder / "data", folder / "postgres.log", folder / "first"
        for file, content in ((first, admin), (passfile, f"127.0.0.1:{port}:*:{ROLE}:{password}")):
            file.touch(mode=0o600)
            file.write_text(content + "\n")
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            for path in (folder, first):
                os.chown(path, account.pw_uid, account.pw_gid)
        initialise: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            f"--pwfile={first}",
        ]
        subprocess.run([*initialise, "--no-sync"], check=True, capture_output=True, cwd=folder, **who)
        first.unlink()
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
        with log.open("ab") as output:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options], stdout=output, stderr=output, cwd=folder, **who
            )
        try:
            ask = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres"]
            answers = partial(subprocess.run, ask, capture_output=True, check=False)
            wait_for(lambda: answers().returncode == 0, "PostgreSQL", log, server)
            place: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}
            with psycopg.connect(**place, password=admin, autocommit=True) as connection:
                role = sql.Identifier(ROLE)
                for command in ("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}", "CREATE DATABASE {} OWNER {}"):
                    given = (role, sql.Literal(password)) if "ROLE" in command else (sql.Identifier(DATABASE), role)
                    connection.execute(sql.SQL(command).format(*given))
            yield f"postgresql+psycopg://{ROLE}@127.0.0.1:{port}/{DATABASE}?passfile={passfile}"
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.wait()


@contextmanager
def s3_server(bucket: str, keys: tuple[str, str] | None = None) -> Iterator[str]:
    """moto's server with one empty bucket on loopback.

    Args:
        bucket: Its name.
        keys: The key pair with which requests must be signed; None: anyone has access.

    Yields:
        The endpoint's URL.
    """
    with tempfile.TemporaryDirectory(prefix="olfl-s3-") as scratch:
        log = Path(scratch) / "server.log"
        with log.open("ab") as output:
            environment = {} if keys is None else {"OLFL_S3_KEY": keys[0], "OLFL_S3_SECRET": keys[1]}
            server = subprocess.Popen(
                [sys.executable, "-c", _S3_SERVER], stdout=output, stderr=output, env={**os.environ, **environment}
            )
        try:

            def found() -> re.Match[str] | None:
                return re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())

            url = wait_for(found, "the S3 server (moto)", log, server)[1]
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request("PUT", f"/{bucket}", headers={} if keys is None else _signed(f"{url}/{bucket}", keys))
            connection.getresponse().read()
            connection.close()
            yield url
        finally:
            server.kill()
            server.wait()


def _signed(url: str, keys: tuple[str, str]) -> dict[str, str]:
    from benchmarks.services.signed import sign

    return sign("PUT", url, *keys)


def wait_for(ready: Callable[[], T | None], what: str, log: Path, process: subprocess.Popen[bytes]) -> T:
    """Wait until a process is ready.

    Args:
        ready: Returns a true value once it is.
        what: Its name for people.
        log: Its log file.
        process: The process.

    Returns:
        The value of `ready`.

    Raises:
            SetupError: It exited, or was not ready in time; with the end of its log.
    """
    end = time.monotonic() + START_SECONDS
    while not (shown := ready()):
        ended = process.poll() is not None
        if ended or time.monotonic() > end:
            why = f"ended with code {process.returncode}" if ended else f"was not ready within {START_SECONDS:g} s"
            raise SetupError(f"{what} {why}; its log ends: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.1)
    return shown
