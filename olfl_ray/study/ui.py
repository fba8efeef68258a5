"""MLflow's page on the home folder's runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from olfl_ray.errors import SetupError
from olfl_ray.study.home import Home
from olfl_ray.tracking import make_store

__all__ = ["serve_ui"]


def serve_ui(home: Home, port: int) -> int:
    """Serve MLflow's page on the home folder's store, on loopback, until it is interrupted; the server's exit code.

    Raises:
        SetupError: Somebody else listens on the port.
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
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0
