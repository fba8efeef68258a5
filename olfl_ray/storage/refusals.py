"""The meaning of an object store's refusal, and how to fix it."""

from __future__ import annotations

import re

__all__ = ["reason_and_move"]

_CODE = re.compile(r"<Code>(\w+)</Code>")

_BY_CODE = {
    "AccessDenied": "denied",
    "Forbidden": "denied",
    "AuthorizationHeaderMalformed": "region",
    "ExpiredToken": "credentials",
    "ExpiredTokenException": "credentials",
    "IllegalLocationConstraintException": "region",
    "InternalError": "busy",
    "InvalidAccessKeyId": "credentials",
    "InvalidToken": "credentials",
    "NoSuchBucket": "bucket",
    "PermanentRedirect": "region",
    "RequestTimeTooSkewed": "clock",
    "ServiceUnavailable": "busy",
    "SignatureDoesNotMatch": "credentials",
    "SlowDown": "busy",
    "TokenRefreshRequired": "credentials",
}
_BY_WORDS = {  # for an answer without a code; the first match counts
    "Config error": "setting",
    "service account file": "setting",
    "169.254.": "none",
    "latest/api/token": "none",
    "token request": "none",
    "401 Unauthorized": "credentials",
    "403 Forbidden": "denied",
    "redirect without LOCATION": "region",
    "500 Internal Server Error": "busy",
    "502 Bad Gateway": "busy",
    "503 Service Unavailable": "busy",
    "504 Gateway Timeout": "busy",
    "error sending request": "silence",
    "timed out": "silence",
    "connection": "silence",
}
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are temporary, AWS_SESSION_TOKEN",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_HOST = {"s3": "Amazon S3", "gs": "Google Cloud Storage"}
_VARIABLE = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL"}


def reason_and_move(answer: str, scheme: str, bucket: str, endpoint: str) -> tuple[str, str]:
    """Why the store refused, and the next move, both brief; never a secret.

    Args:
        answer: The client's error text, which includes the store's response.
        scheme: s3 or gs.
        bucket: Name of the bucket.
        endpoint: URL from the environment; empty for the cloud's own.
    """
    code = found[1] if (found := _CODE.search(answer)) else ""
    kind = _BY_CODE.get(code) or next((kind for words, kind in _BY_WORDS.items() if words in answer), "")
    host, keys = endpoint or _HOST[scheme], _KEYS[scheme]
    detail = f": {code}" if code else ""
    match kind:
        case "bucket":
            return f"{host} has no bucket {bucket!r}", "create it, or correct the name"
        case "credentials":
            return f"{host} refuses the credentials{detail}", f"set {keys} again"
        case "none":
            hint = "; `aws configure export-credentials --format env` prints a profile's" if scheme == "s3" else ""
            return "there are no credentials", f"set {keys} in the environment of every process that uses it{hint}"
        case "denied":
            return (
                f"{host} denies permission{detail}",
                f"let these credentials list, read, write and delete in bucket {bucket!r}, or set {keys} to others",
            )
        case "region":
            return f"bucket {bucket!r} is in another region{detail}", "set AWS_REGION to that of the bucket"
        case "clock":
            return f"{host} finds this machine's clock wrong", "set the clock"
        case "setting":
            return answer.splitlines()[0][:200], "correct that setting in the environment"
        case "busy":
            return f"{host} is overloaded or unavailable{detail}", "start again later: earlier data is intact"
        case "silence":
            return (
                f"{host} does not answer",
                f"check the network and {_VARIABLE[scheme]}, and start again: earlier data is intact",
            )
        case _:
            return code or answer.splitlines()[0][:200], "check that store, or choose another location"
