"""Access control of an S3 endpoint: only requests that are signed with one key pair (AWS Signature Version 4)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

__all__ = ["sign", "signed_only"]

SKEW = timedelta(minutes=15)
"""Maximum difference between a signature's time and now, as on S3."""
REGION = "us-east-1"
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>one key pair is let in</Message></Error>'
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def signed_only(app: Application, key: str, secret: str) -> Application:
    """A WSGI application that forwards requests to another one only if they are signed with this key pair."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _is_signed(environ, key, secret):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
        return [DENIED]

    return guarded


def sign(method: str, url: str, key: str, secret: str) -> dict[str, str]:
    """Headers that authorize a request without a body."""
    request = AWSRequest(method=method, url=url)
    S3SigV4Auth(Credentials(key, secret), "s3", REGION).add_auth(request)
    return dict(request.headers.items())


def _is_signed(environ: Mapping[str, Any], key: str, secret: str) -> bool:
    kind, _, fields = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    given = dict(field.strip().partition("=")[::2] for field in fields.split(","))
    scope = given.get("Credential", "").split("/")
    moment = environ.get("HTTP_X_AMZ_DATE", "")
    if kind != "AWS4-HMAC-SHA256" or len(scope) != 5 or scope[0] != key or not moment.startswith(scope[1]):
        return False
    try:
        signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    if abs(datetime.now(UTC) - signed_at) > SKEW:
        return False
    headers = {name: _header(environ, name) for name in given.get("SignedHeaders", "").split(";")}
    if not {"host", "x-amz-date"} <= headers.keys():
        return False
    target = urlsplit(environ.get("RAW_URI", environ.get("REQUEST_URI", "")))
    # A client may send a path and a query in another encoding than it signs, so both are encoded as in S3.
    url = f"http://{headers['host']}{quote(unquote(target.path), safe='/-_.~')}"
    query = parse_qsl(target.query, keep_blank_values=True)
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers=headers, params=query)
    if "X-Amz-Content-SHA256" not in request.headers:
        request.headers["X-Amz-Content-SHA256"] = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    request.context["timestamp"] = moment
    auth = _As(Credentials(key, secret), scope[3], scope[2])
    auth.names = sorted(headers)
    wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return hmac.compare_digest(str(wanted).encode(), given.get("Signature", "").encode())


class _As(S3SigV4Auth):  # type: ignore[misc]
    """Signs the same headers as the other side."""

    names: list[str]

    def headers_to_sign(self, request: Any) -> Any:
        found = super().headers_to_sign(request)
        for name in set(found.keys()) - set(self.names):
            del found[name]
        for name in self.names:
            if name not in found:
                found[name] = request.headers[name]
        return found


def _header(environ: Mapping[str, Any], name: str) -> str:
    plain = name.upper().replace("-", "_")
    return str(environ.get(plain if plain in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{plain}", ""))
