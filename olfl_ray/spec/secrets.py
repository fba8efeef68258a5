"""A spec must not hold passwords, since it is stored, printed and sent to MLflow: they are found, refused, never repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from olfl_ray.errors import SpecError

__all__ = ["refuse_secrets", "without_secrets"]

_SECRETS = (  # of http(s) a user alone may be a token; of others SQLAlchemy takes all up to the last @ for the password
    (re.compile(r"(https?://)[^/?#\s]*@", re.I), r"\1***@"),
    (re.compile(r"(?<![A-Za-z])((?!https?:)[A-Za-z][A-Za-z0-9+.-]*://[^:/@\s]*):[^\s]*@", re.I), r"\1:***@"),
    (re.compile(r"([?&][a-z_-]*(?:passw(?:or)?d|pwd|secret|token|signature|sig|api_?key)=)[^&\s]+", re.I), r"\1***"),
)
_MOVES = {
    "storage": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a role), or GOOGLE_APPLICATION_CREDENTIALS",
    "tracking": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, for a server; "
    "PGPASSWORD or PGPASSFILE for PostgreSQL",
}


def without_secrets(text: str) -> str:
    """A text with `***` in place of the passwords of its URLs: before the host, or in the query."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def refuse_secrets(spec: Any) -> None:
    """Refuse a spec with a password in a URL anywhere.

    Args:
        spec: Plain values or sections.

    Raises:
        SpecError: Names the field, not the value, and where a password belongs.
    """
    for field, text in _texts(spec, ""):
        if without_secrets(text) != text:
            move = _MOVES.get(field.partition(".")[0], "variables that your own code reads")
            raise SpecError(
                field,
                "the URL holds a password or token, and a spec is stored and printed; remove it from the URL and set it "
                f"in the environment ({move})",
            )


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Every text in there, keys too, with its field."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, BaseModel):
        yield from _texts(dict(value), field)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and without_secrets(key) != key:
                yield field, key
            else:
                yield from _texts(inner, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, field)
