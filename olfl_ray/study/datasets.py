"""The built-in data sets, and one of them made ready."""

from __future__ import annotations

from typing import Any

from olfl_ray import data
from olfl_ray.study.home import Home, data_root

__all__ = ["describe_data", "prepare_data"]


def describe_data() -> list[tuple[Any, ...]]:
    """The built-in data sets."""
    return [tuple(row) for row in data.describe(data_root())]


def prepare_data(name: str, *, home: Home) -> str:
    """Find, check and prepare a data set; one line about it."""
    found = data.load(name, {}, cache=home.cache, root=data_root())
    return f"{name}: {len(found.y)} rows, {found.kind}, from {found.source}"
