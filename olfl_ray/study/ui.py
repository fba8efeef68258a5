"""MLflow's page on the home folder's runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from olfl_ray.errors import SetupError
from olfl_ray.study.home import Home
from olfl_ray.tracking import make_store

__all__ = ["serve_ui"]

POLL_SECONDS, PATIENCE_SECONDS = 0.2, 10.0


def serve_ui(home: Home, port: int, ready: Callable[[str], None] = print) -> int:
    """Serve MLflow's page on the home folder's store, on loopback, until it is ended by SIGINT, SIGTERM or SIGHUP.

    Args:
        home: The home folder.
        port: Port on loopback.
        ready: Called with the page's URL once it answers.

    Returns:
        Exit code: 0 where it was ended.

    Raises:
        SetupError: Somebody else listens on the port, or the server ends by itself.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise SetupError(f"--port: {port} can't be listened on ({error}); choose another") from None
    make_store(home.tracking_uri)  # completely: the server would make it where it is
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", home.tracking_uri),
        *("--artifacts-destination", home.artifacts.as_uri(), "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]
    # Its job runners would take two more gigabytes, for nothing that is used here.
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    url = f"http://127.0.0.1:{port}"
    try:
        with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
            while server.poll() is None and not _answers(url):
                time.sleep(POLL_SECONDS)
            if server.poll() is None:
                ready(url)
            code = server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)
    raise SetupError(f"MLflow's server ended by itself (exit code {code}); its own lines say why")


def _answers(url: str) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Take further signals for an interrupt, so that no server is left behind. (Main thread only.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(name, interrupt) for name in signals if signal.getsignal(name) != signal.SIG_IGN}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(name, old)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and what it started."""
    family = []
    with suppress(psutil.Error):
        family = psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    try:
        server.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for process in psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()
