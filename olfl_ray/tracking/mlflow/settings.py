"""A trial's settings as MLflow params, with names and values that MLflow accepts."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_key", "as_params", "in_batches"]

LONGEST_KEY, LONGEST_VALUE = 250, 6000
"""MLflow's limits in characters."""
MOST_PARAMS, MOST_CHARACTERS = 100, 150_000
"""MLflow's limit on params per call; and on their characters: as JSON (six bytes each) they stay below its limit of 1 MB."""
CUT = "... (complete in config.json)"
"""Suffix of a value that is longer than MLflow allows."""
_REFUSED = re.compile(r"[^\w./ :-]")


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name, as texts that MLflow accepts.

    A character that MLflow does not allow in a name is escaped as in XML names: `class (1)` is `class _x0028_1_x0029_`. The
    artifact config.json has names and values unchanged.

    Args:
        settings: Nested plain values.
    """
    leaves = list(_leaves(settings, ()))
    times = Counter(".".join(path) for path, _ in leaves)
    found: dict[str, str] = {}
    for path, value in leaves:
        name = ".".join(path)
        if times[name] > 1:  # {"a.b": 1, "a": {"b": 2}}: distinguish a dot in a key from the separator
            name = ".".join(_escaped(key, r"\.") for key in path)
        text = value if isinstance(value, str) else json.dumps(value)
        found[as_key(name)] = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - len(CUT)] + CUT
    return found


def in_batches(params: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The params in batches that MLflow accepts in one call each."""
    portion: dict[str, str] = {}
    for key, value in params.items():
        characters = sum(len(name) + len(text) for name, text in portion.items())
        if len(portion) == MOST_PARAMS or characters + len(key) + len(value) > MOST_CHARACTERS:
            yield portion
            portion = {}
        portion[key] = value
    yield portion


def _leaves(settings: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def as_key(name: str) -> str:
    """A name that MLflow accepts; it also refuses names that are not normal relative paths."""
    name = _escaped(name, _REFUSED.pattern)
    normal = posixpath.normpath(name)
    if normal != name or normal.startswith(("/", ".")):
        name = _escaped(name, r"/|^\.+$|^\.")
    if len(name) > LONGEST_KEY:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: LONGEST_KEY - len(digest) - 1]}_{digest}"
    return name


def _escaped(text: str, pattern: str) -> str:
    return re.sub(pattern, lambda found: "".join(f"_x{ord(letter):04x}_" for letter in found[0]), text)
