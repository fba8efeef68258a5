"""An event as the bytes of one line, `{"check":"...",...}`, where `check` covers every other byte.

A flipped, missing or extra byte anywhere in the line is detected, and so is a line in another one's position.
"""

from __future__ import annotations

import json
from hashlib import sha256

from olfl_ray.ledger.events import Event

__all__ = ["Corrupt", "Unknown", "decode", "encode", "seal", "unseal"]

_HEAD, _DIGITS, _NECK = b'{"check":"', 16, b'",'
_BODY = len(_HEAD) + _DIGITS + len(_NECK)


class Corrupt(ValueError):
    """The bytes are corrupt."""


class Unknown(ValueError):
    """The bytes are intact, but in a format that this version does not know."""


def encode(number: int, writer: str, event: Event) -> bytes:
    """Encode an event as one line.

    Args:
        number: Its position in the log, from 1.
        writer: Token of the `Ledger` that writes it, so that lines of two writers always differ.
        event: The event.

    Raises:
        TypeError: A field of the event can't be expressed in JSON.
    """
    line = {"number": number, "writer": writer, "event": event.to_json()}
    return seal(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")


def decode(line: bytes, number: int) -> Event:
    """Decode the event of one line.

    Raises:
        Corrupt: The line is corrupt, or belongs to another event than `number`.
        Unknown: A later version wrote it.
    """
    body = unseal(line)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"it is not one JSON object: {error}") from error
    if not isinstance(content, dict):
        raise Corrupt("it is not one JSON object")
    if content.get("number") != number:
        raise Corrupt(f"it holds event {content.get('number')}, not event {number}")
    try:
        return Event.from_json(dict(content.get("event", {})))
    except (ValueError, TypeError, RecursionError) as error:
        raise Unknown(str(error)) from error


def seal(body: bytes) -> bytes:
    """Insert the checksum as the first member of a JSON object's bytes."""
    return _HEAD + _checksum(body) + _NECK + body[1:]


def unseal(sealed: bytes) -> bytes:
    """The inverse of `seal`. Raises `Corrupt` if any byte has changed."""
    body = b"{" + sealed[_BODY:]
    if sealed[:_BODY] != _HEAD + _checksum(body) + _NECK:
        raise Corrupt("its checksum does not match its content")
    return body


def _checksum(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:_DIGITS].encode()
