"""Whether a JSON document has exactly the fields that docs/json.md describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.commands import Run

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def documented(command: str) -> set[str]:
    """The fields of a command's table."""
    (section,) = re.findall(rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def paths(value: Any, known: set[str], path: str = "") -> Iterator[str]:
    """The fields of a document; below a field whose keys are free, they are `*`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            below = f"{path}.{key}" if path else key
            found = below if below in known or f"{path}.*" not in known else f"{path}.*"
            yield found
            yield from paths(inner, known, found)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, known, f"{path}[]")


def check(command: str, document: Any, *, empty: tuple[str, ...] = (), free: tuple[str, ...] = ()) -> None:
    """A document has the documented fields and no others.

    Args:
        command: Heading of its table.
        document: The document.
        empty: Fields that are null or empty in it, so that there is nothing below them.
        free: Fields whose content is described elsewhere.
    """
    known = documented(command)
    seen = {path for path in paths(document, known) if not path.startswith(tuple(f"{one}." for one in free))}
    hidden = {path for path in known if path.startswith(tuple(f"{one}{sign}" for one in empty for sign in ".["))}
    assert seen == known - hidden


def document(olfl: Run, *arguments: object, code: int = 0) -> Any:
    found, out, err = olfl(*arguments, "--json")
    assert found == code, err
    return json.loads(out)
