"""An event as the bytes of one line, `{"check":"...",...}`, where `check` covers every other byte.

A flipped, missing or added byte anywhere in the line, and a line in another's position, are detected.
"""

from __future__ import annotations

import json
from hashlib import sha256

from olfl_ray.ledger.events import Event

__all__ = ["Damaged", "Unknown", "decode", "encode", "seal", "unseal"]

_HEAD, _DIGITS, _NECK = b'{"check":"', 16, b'",'
_BODY = len(_HEAD) + _DIGITS + len(_NECK)


class Damaged(ValueError):
    """The bytes are not those that were written."""


class Unknown(ValueError):
    """The bytes are intact, but of a form that this version does not know."""


def encode(number: int, writer: str, event: Event) -> bytes:
    """One event's line.

    Args:
        number: Its position in the log, from 1.
        writer: Token of the `Ledger` that writes it, so that two writers' lines always differ.
        event: The event.

    Raises:
        TypeError: A field of the event has no JSON form.
    """
    line = {"number": number, "writer": writer, "event": event.to_json()}
    return seal(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")


def decode(line: bytes, number: int) -> Event:
    """The event of one line.

    Raises:
        Damaged: The line is not as it was written, or is not that of `number`.
        Unknown: A later version wrote it.
    """
    body = unseal(line)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is not one JSON object: {error}") from error
    if not isinstance(content, dict):
        raise Damaged("it is not one JSON object")
    if content.get("number") != number:
        raise Damaged(f"it holds event {content.get('number')}, not event {number}")
    try:
        return Event.from_json(dict(content.get("event", {})))
    except (ValueError, TypeError, RecursionError) as error:
        raise Unknown(str(error)) from error


def seal(body: bytes) -> bytes:
    """A JSON object's bytes with the checksum put in as its first member."""
    return _HEAD + _checksum(body) + _NECK + body[1:]


def unseal(sealed: bytes) -> bytes:
    """The bytes that `seal` was given. Raises `Damaged` unless every byte is as it was."""
    body = b"{" + sealed[_BODY:]
    if sealed[:_BODY] != _HEAD + _checksum(body) + _NECK:
        raise Damaged("its checksum does not match its content")
    return body


def _checksum(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:_DIGITS].encode()
