"""An object store's endpoint and credentials from the environment, validated before use."""

from __future__ import annotations

import os
import re

from olfl_ray.errors import SetupError

__all__ = ["HTTP_URL", "endpoint"]

_ENDPOINT = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
_PLAIN = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "gs": ("GOOGLE_BEARER_TOKEN",),
}
_WORD = re.compile(r"[!-~]*", re.ASCII)
HTTP_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(/[!-~]*)?", re.ASCII)
"""A server's URL, without a user."""


def endpoint(scheme: str) -> str:
    """URL of the server that a scheme's URLs refer to; empty for the cloud's own.

    Args:
        scheme: s3 or gs.

    Raises:
        SetupError: A variable has a form that no request can carry, or the endpoint holds a password; the message repeats
            no credential.
            credential is repeated.
    """
    for name in _PLAIN[scheme]:
        if not _WORD.fullmatch(os.environ.get(name, "")):
            raise SetupError(
                f"{name}: it contains a space, a line break or a non-ASCII character, which keys never contain; set it again"
                " (a trailing line break from a file is a common cause)"
            )
    name = next((name for name in _ENDPOINT[scheme] if os.environ.get(name)), "")
    url = os.environ.get(name, "")
    if "@" in url:
        raise SetupError(
            f"{name}: the URL holds a user or a password; give only the host, and credentials with"
            f" {' and '.join(_PLAIN[scheme][:2])}"
        )
    if url and not HTTP_URL.fullmatch(url):
        raise SetupError(f"{name}: {url!r} must be http://HOST:PORT or https://HOST:PORT; correct it")
    return url
