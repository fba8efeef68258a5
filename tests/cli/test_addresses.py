"""The address of a cluster: URL, variable or settings file; every error in it is one sentence, with exit code 2."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.commands import Run

from olfl_ray.errors import SetupError, UserError
from olfl_ray.remote.jobs import JobServer
from olfl_ray.remote.targets import find_target, read_settings, token_of

SECRET = "a-secret-that-nobody-prints"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without cluster, token or settings."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "OLFL_CONFIG", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write the user's settings file."""
    path = tmp_path / "settings.yaml"
    monkeypatch.setenv("OLFL_CONFIG", str(path))

    def write(text: str) -> None:
        path.write_text(text)

    return write


@contextmanager
def server(body: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Port of a loopback server that gives every request the same response."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust the certificate disconnects."""

    listening = Quiet(("127.0.0.1", 0), Answer)
    if context is not None:
        listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield listening.server_port
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def certificate(folder: Path) -> ssl.SSLContext:
    """A self-signed certificate for a server; it is in `ca.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(made.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def refusal(found: tuple[int, str, str]) -> str:
    code, out, err = found
    assert code == 2, out + err
    assert err.startswith("olfl: ")
    assert err.count("\n") == 1
    assert SECRET not in out + err
    return err


def test_address_overrides_the_variable_and_the_variable_the_default(
    settings: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings("default: lab\ntargets: {lab: {address: http://lab:1}, other: {address: http://other:2/}}")
    assert find_target()[1].address == "http://lab:1"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a Ray cluster's own address, not a job server's
    assert find_target()[0] == "lab"
    monkeypatch.setenv("RAY_ADDRESS", "http://variable:3")
    assert find_target()[1].address == "http://variable:3"
    assert find_target("other")[1].address == "http://other:2"
    assert find_target("https://given:4/ray")[1].address == "https://given:4/ray"


def test_targets_token_file_overrides_rays_variables(
    settings: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("own", "path"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(f"{name}\n")
    settings("targets: {lab: {address: http://lab:1, token_file: ~/own}, bare: {address: http://bare:2}}")
    bare = find_target("bare")[1]
    assert token_of(bare).value == ""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/path")
    assert token_of(bare).value == "path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "variable")
    assert token_of(bare).value == "variable"
    assert token_of(find_target("lab")[1]).value == "own"
    assert "own" not in repr(token_of(find_target("lab")[1])).replace(str(tmp_path / "own"), "")


WRONG_SETTINGS = {
    "an unknown field": ("targets: {lab: {address: http://lab:1, tokn_file: x}}", "targets.lab.tokn_file: there is no"),
    "a token": (f"targets: {{lab: {{address: http://lab:1, token: {SECRET}}}}}", "token_file"),
    "a password": (
        f"targets: {{lab: {{address: 'http://u:{SECRET}@lab:1'}}}}",
        "lab.address: the URL holds a password",
    ),
    "a password of the tracking's": (
        f"targets: {{lab: {{address: 'http://lab:1', tracking: 'postgresql://u:{SECRET}@db/x'}}}}",
        "lab.tracking: the URL holds a password",
    ),
    "no address": ("targets: {lab: {}}", "targets.lab.address: this field is required"),
    "no URL": (
        "targets:\n  lab: {address: lab}",
        "settings.yaml:2: targets.lab.address: 'lab' must be http://HOST:PORT",
    ),
    "a default that is not there": ("default: lab", "there is no target 'lab'; there are: none yet"),
    "code": ("targets: !!python/object/apply:os.system ['true']", "settings.yaml"),
    "no YAML": ("targets: [", "is not valid YAML"),
}


@pytest.mark.parametrize("kind", WRONG_SETTINGS)
def test_invalid_settings_name_the_field(settings: Callable[[str], None], kind: str) -> None:
    text, wanted = WRONG_SETTINGS[kind]
    settings(text)
    with pytest.raises(UserError) as raised:
        read_settings()
    assert wanted in str(raised.value)
    assert SECRET not in str(raised.value)


WRONG_ADDRESSES = {
    "no address": ([], "--address: none was given"),
    "an unknown target": (["--address", "lab"], "'lab' is neither a URL (http://HOST:8265) nor a target"),
    "no scheme": (["--address", "head:8265"], "must be http://HOST:PORT"),
    "Ray's own": (["--address", "ray://head:10001"], "must be http://HOST:PORT"),
    "a password": (["--address", f"http://u:{SECRET}@head:8265"], "the URL holds a user or a password"),
    "no port": (
        ["--address", "http://127.0.0.1:99999"],
        "http://127.0.0.1:99999 is not an address; it must be http://HOST",
    ),
    "no host's name": (
        ["--address", "http://a..b:8265"],
        "http://a..b:8265 is not an address; it must be http://HOST:PORT",
    ),
    "a host's name too long": (
        ["--address", f"http://{'a' * 300}:8265"],
        "a:8265 is not an address; it must be http://HOST",
    ),
    "nobody there": (["--address", "http://127.0.0.1:9"], "http://127.0.0.1:9 can't be reached (Connection refused)"),
}


@pytest.mark.parametrize("kind", WRONG_ADDRESSES)
def test_invalid_address_is_one_sentence(olfl: Run, kind: str) -> None:
    arguments, wanted = WRONG_ADDRESSES[kind]
    assert wanted in refusal(olfl("sweep", "logs", "x", *arguments))


WRONG_TOKENS = {
    "read by others": (0o644, SECRET, "other users can read this token (mode 644); make it yours: chmod 600"),
    "empty": (0o600, "", "holds no token"),
    "two lines": (0o600, f"{SECRET}\n{SECRET}", "holds no token"),
}


@pytest.mark.parametrize("kind", WRONG_TOKENS)
def test_unreadable_invalid_or_shared_token_file_is_refused(
    olfl: Run, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, text, wanted = WRONG_TOKENS[kind]
    (tmp_path / "token").write_text(text)
    (tmp_path / "token").chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert wanted in refusal(olfl("sweep", "list", "--address", "http://127.0.0.1:9"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    assert "the token can't be read" in refusal(olfl("sweep", "list", "--address", "http://127.0.0.1:9"))


def test_variable_without_a_valid_token_is_named_and_not_printed(olfl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", f"{SECRET}\n{SECRET}")
    found = refusal(olfl("sweep", "list", "--address", "http://127.0.0.1:9"))
    assert "RAY_AUTH_TOKEN: holds no token" in found


def test_token_that_is_invalid_in_a_header_is_not_printed() -> None:
    with pytest.raises(SetupError, match=r"the token of a notebook .*ASCII") as refused:
        JobServer("http://127.0.0.1:9", token=f"{SECRET}\n{SECRET}", token_source="a notebook")
    assert SECRET not in str(refused.value)


HOMES_OF_NOBODY = {
    "the settings": ("OLFL_CONFIG", "~nobody-here/x", ["--address", "lab"]),
    "the token": ("RAY_AUTH_TOKEN_PATH", "~nobody-here/x", ["--address", "http://127.0.0.1:9"]),
    "the storage": ("OLFL_CONFIG", "", ["--storage", "~nobody-here/x"]),
}


@pytest.mark.parametrize("kind", HOMES_OF_NOBODY)
def test_unknown_users_home_is_named(olfl: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    variable, value, arguments = HOMES_OF_NOBODY[kind]
    monkeypatch.setenv(variable, value)
    assert "~nobody-here/x: there is no home folder" in refusal(olfl("sweep", "list", *arguments))


@pytest.mark.parametrize("field", ["token_file", "ca_file"])
def test_targets_file_in_an_unknown_users_home_is_named(olfl: Run, settings: Callable[[str], None], field: str) -> None:
    settings(f"targets: {{lab: {{address: 'http://127.0.0.1:9', {field}: ~nobody-here/x}}}}")
    assert "~nobody-here/x: there is no home folder" in refusal(olfl("sweep", "list", "--address", "lab"))


def test_server_that_is_not_ray_or_another_version_is_refused(olfl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    with server(b"<html>hello</html>") as port:
        assert "is not a Ray job server" in refusal(olfl("sweep", "list", "--address", f"http://127.0.0.1:{port}"))
        found = refusal(olfl("sweep", "list", "--address", f"https://127.0.0.1:{port}"))
        assert "does not use TLS; use http://" in found
    with server(json.dumps({"ray_version": "2.9.3"}).encode()) as port:
        assert "runs Ray 2.9.3, but here it is" in refusal(
            olfl("sweep", "list", "--address", f"http://127.0.0.1:{port}")
        )


def test_only_the_targets_certificate_authority_is_trusted(
    olfl: Run, settings: Callable[[str], None], tmp_path: Path
) -> None:
    with server(json.dumps({"ray_version": "2.9.3"}).encode(), certificate(tmp_path)) as port:
        url = f"https://127.0.0.1:{port}"
        found = refusal(olfl("sweep", "list", "--address", url))
        assert "its certificate is not trusted (self-signed certificate)" in found
        assert "ca_file" in found
        settings(f"targets: {{lab: {{address: '{url}', ca_file: {tmp_path / 'ca.pem'}}}}}")
        assert "runs Ray 2.9.3" in refusal(olfl("sweep", "list", "--address", "lab"))
        assert "is it https://?" in refusal(olfl("sweep", "list", "--address", url.replace("https", "http")))
        settings(f"targets: {{lab: {{address: '{url}', ca_file: /nowhere}}}}")
        assert "ca_file: /nowhere" in refusal(olfl("sweep", "list", "--address", "lab"))


def test_unresponsive_server_is_refused_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olfl_ray.remote.jobs.CONNECT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(SetupError, match="can't be reached"):
            JobServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
