"""A trial's settings as MLflow's params: each arrives, with a name and a format that MLflow accepts."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["as_params", "in_batches"]

LONGEST_KEY, LONGEST_VALUE = 250, 6000
"""Characters, MLflow's limits."""
MOST_PARAMS, MOST_CHARACTERS = 100, 150_000
"""Params in one call, MLflow's limit; and their characters: as JSON, six bytes each, they stay below its limit of 1 MB."""
CUT = "... (complete in config.json)"
"""End of a value that is longer than MLflow takes."""
_REFUSED = re.compile(r"[^\w./ :-]")


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name, as texts that MLflow takes.

    A character that MLflow refuses in a name is written as XML's tools write it: `class (1)` is `class _x0028_1_x0029_`. The
    artifact config.json has names and values as they are.

    Args:
        settings: Plain values, nested.
    """
    leaves = list(_leaves(settings, ()))
    times = Counter(".".join(path) for path, _ in leaves)
    found: dict[str, str] = {}
    for path, value in leaves:
        name = ".".join(path)
        if times[name] > 1:  # {"a.b": 1, "a": {"b": 2}}: the dot within a key is not the one between keys
            name = ".".join(_escaped(key, r"\.") for key in path)
        text = value if isinstance(value, str) else json.dumps(value)
        found[_key(name)] = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - len(CUT)] + CUT
    return found


def in_batches(params: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The params in portions that MLflow takes in one call each."""
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


def _key(name: str) -> str:
    """A name that MLflow takes; it refuses what is no normal relative path, too."""
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
