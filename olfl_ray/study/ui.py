"""MLflow's UI for the home folder's runs."""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from olfl_ray.driver.home import Home
from olfl_ray.errors import SetupError
from olfl_ray.tracking.mlflow import make_store

__all__ = ["serve_ui"]


def serve_ui(home: Home, port: int, ready: Callable[[str], None] = print) -> int:
    """Serve MLflow's page on the home folder's store, on loopback, until it is ended by SIGINT, SIGTERM or SIGHUP.

    Args:
        home: The home folder; no file outside of its artifacts is shown.
        port: Port on loopback; 0: a free one.
        ready: Called with the page's URL once it answers. The URL holds a secret of this server: other users of the machine
            reach loopback, too.

    Returns:
        Exit code: 0 where it was ended.

    Raises:
        SetupError: Somebody else listens on the port, or the server ends by itself.
    """
    from olfl_ray.tracking.mlflow.page import SECRET, serve_page

    secret = secrets.token_urlsafe(32)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except (OSError, OverflowError) as error:
            raise SetupError(f"--port: {port} can't be listened on ({error}); choose another") from None
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/?{SECRET}={secret}"
        try:
            with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
                make_store(home.tracking_uri)  # completely: the server would make it where it is
                serve_page(
                    home.tracking_uri, home.artifacts, listener=listener, secret=secret, ready=lambda: ready(url)
                )
        except KeyboardInterrupt:
            return 0
        except SystemExit as error:
            raise SetupError(f"MLflow's server exited (exit code {error.code}); see its output") from None
    return 0


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Take further signals for an interrupt. (Main thread only.)"""
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
