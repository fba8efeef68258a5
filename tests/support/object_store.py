"""An S3 endpoint on loopback: moto's server as a process of its own, and a relay that loses what it is told to lose."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

BUCKET = "studies"

# moto looks whether an object is there and puts it in two steps, between which another thread may put one; one request
# at a time makes a conditional put the single step that it is on a real store.
_SERVER = """
import threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
app, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with turn:
        return app(environ, start_response)

run_simple("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
"""
_PER_HOP = ("connection", "content-length", "transfer-encoding", "date", "server")

Judge = Callable[[str, str], "int | None"]
"""Method and path -> None to pass the answer on, 0 to lose it, or a status to answer without asking the store."""


@contextmanager
def s3_server() -> Iterator[str]:
    """URL of a running server with one empty bucket, `studies`; the process is ended by its id."""
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=log, stderr=log)
        try:
            url = _url_in(log, child)
            assert ask(url, "PUT", f"/{BUCKET}") == 200
            yield url
        finally:
            child.kill()
            child.wait()


def ask(url: str, method: str, path: str, body: bytes = b"") -> int:
    """Status of one request to the server itself."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, body)
    status = connection.getresponse().status
    connection.close()
    return status


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have the environment name an endpoint and credentials for it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-any-log")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@contextmanager
def relay(url: str, judge: Judge = lambda method, path: None, *, hide: str = "", port: int = 0) -> Iterator[str]:
    """URL of a relay to the server at `url`.

    Args:
        url: The server.
        judge: What becomes of each answer.
        hide: Header that the server never sees, in small letters.
        port: Where to listen; 0: anywhere.
    """

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            verdict = judge(self.command, self.path)
            if verdict:
                self.send_response(verdict)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            upstream = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            kept = {name: value for name, value in self.headers.items() if name.lower() != hide}
            upstream.request(self.command, self.path, body, kept)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if verdict == 0:
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


def _url_in(log, child: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end and child.poll() is None:
        log.seek(0)
        if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read()):
            return found[1]
        time.sleep(0.05)
    log.seek(0)
    raise RuntimeError(f"moto's server did not start: {log.read()}")
