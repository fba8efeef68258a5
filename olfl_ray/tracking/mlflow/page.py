"""MLflow's UI, protected by a secret and restricted to the artifacts in one folder: other users can reach loopback."""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from olfl_ray.storage import make_folder

__all__ = ["SECRET", "serve_page"]

SECRET = "secret"
"""Query field of the printed URL; the response stores its value in a cookie."""
REFUSAL = "This page is only for those who have the URL with the secret that `olfl ui` printed. Programs: MLFLOW_TRACKING_TOKEN."
VIEW = "#/experiments?workflowType=machine_learning"
"""Fragment that opens MLflow's model-training view, which the browser then remembers; without it MLflow opens its GenAI view."""
LONGEST_START = 60.0
"""Seconds in which the page must answer once the server listens."""
PATIENCE = 5
"""Seconds that open requests have once the server is requested to stop."""


def serve_page(
    uri: str, artifacts: Path, *, listener: socket.socket, secret: str, ready: Callable[[], None] = lambda: None
) -> None:
    """Serve MLflow's UI and API from this process until it is interrupted.

    Args:
        uri: The tracking store.
        artifacts: The only folder whose files it reads and writes, whatever artifact location an experiment has.
        listener: A socket that is bound to an address.
        secret: Required in each request: as a cookie, or as `Authorization: Bearer`.
        ready: Called once the page answers.

    Raises:
        SystemExit: It does not answer.
    """
    import uvicorn

    app = Guard(_mlflow(uri, artifacts), secret, cookie=f"olfl-{listener.getsockname()[1]}")
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=PATIENCE)

    class Server(uvicorn.Server):
        answers = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if (
                threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
            ):
                # An exception in a signal handler may be lost in a callback of the loop; this is uvicorn's own way to stop.
                end = partial(self.handle_exit, signal.SIGHUP, None)
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, end)
            self.answers = await asyncio.to_thread(_answers, listener.getsockname()[1], secret)
            if not self.answers:
                self.should_exit = True
            elif not self.should_exit:
                ready()

    server = Server(settings)
    server.run(sockets=[listener])
    if not server.answers:
        raise SystemExit(1)


def _answers(port: int, secret: str) -> bool:
    """Wait until the page answers on loopback; whether it does."""
    page = Request(f"http://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {secret}"})
    direct = build_opener(ProxyHandler({}))
    end = time.monotonic() + LONGEST_START
    while time.monotonic() < end:
        try:
            with direct.open(page, timeout=LONGEST_START) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.1)
    return False


def _mlflow(uri: str, artifacts: Path) -> Any:
    """MLflow's own application, which reads its settings from the environment at import."""
    from mlflow.server import constants

    make_folder(artifacts)
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts.resolve().as_uri(),
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it would need two more gigabytes, and is not used here
    }
    _confine(artifacts.resolve())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's modules warn about their dependencies
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(uri, None, "mlflow-artifacts:/")
    return app


def _confine(folder: Path) -> None:
    """Restrict artifact URIs to a folder: anyone who can create an experiment chooses its artifact location."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.artifact import artifact_repository_registry as repositories
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(uri: str, *_: Any, **__: Any) -> Any:
        raise MlflowException(f"{uri}: only artifacts in {folder} are shown here", error_code=PERMISSION_DENIED)

    def local(uri: str, *args: Any, **kwargs: Any) -> Any:
        found = LocalArtifactRepository(uri, *args, **kwargs)
        return found if Path(found.artifact_dir).resolve().is_relative_to(folder) else refuse(uri)

    registry: Any = repositories._artifact_repository_registry
    for scheme in list(registry.get_registered_artifact_repositories()):
        if scheme not in ("mlflow-artifacts", "runs", "models"):  # these resolve to one of the others
            registry.register(scheme, local if scheme in ("", "file") else refuse)


class Guard:
    """An ASGI application that answers only requests with the secret.

    Args:
        app: The application.
        secret: The secret.
        cookie: Name of the cookie in which a browser stores it.
    """

    def __init__(self, app: Any, secret: str, *, cookie: str) -> None:
        self._app, self._secret, self._cookie = app, secret, cookie

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request (ASGI)."""
        from starlette.requests import HTTPConnection
        from starlette.responses import PlainTextResponse, RedirectResponse

        if scope["type"] == "lifespan" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if self._fits(request.query_params.get(SECRET, "")) and scope["type"] == "http":
            path = request.url.path
            answer = RedirectResponse(path + VIEW if path == "/" else path, status_code=303)
            answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="lax")
            await answer(scope, receive, send)
        elif self._fits(request.cookies.get(self._cookie, "")) or (kind.lower() == "bearer" and self._fits(bearer)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(REFUSAL + "\n", 401)(scope, receive, send)

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._secret.encode())
