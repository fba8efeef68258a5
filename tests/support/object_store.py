"""An S3 endpoint for tests: its environment variables, and a relay that drops chosen messages."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

BUCKET = "studies"

_PER_HOP = ("connection", "content-length", "transfer-encoding", "date", "server")

Reply = Callable[[str, str], "int | None"]
"""Method and path -> None to forward the response, 0 to lose it, or a status to return without asking the store."""


def ask(url: str, method: str, path: str, body: bytes = b"") -> int:
    """Status of one request to the server itself."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, body)
    status = connection.getresponse().status
    connection.close()
    return status


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set the environment to an endpoint with credentials for it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-any-log")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@contextmanager
def relay(url: str, reply: Reply = lambda method, path: None, *, hide: str = "", port: int = 0) -> Iterator[str]:
    """URL of a relay to the server at `url`.

    Args:
        url: The server.
        reply: Decides what happens to each response.
        hide: Header to remove from requests, in lowercase.
        port: Where to listen; 0: anywhere.
    """

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = reply(self.command, self.path)
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            upstream = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            kept = {name: value for name, value in self.headers.items() if name.lower() != hide}
            upstream.request(self.command, self.path, body, kept)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if status == 0:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _PER_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Relay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
