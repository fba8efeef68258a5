"""The data sets that a spec names, in any arm and at any point of its search; of those in files, the paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

__all__ = ["with_datasets", "without_folder"]

FIELDS = ("task.dataset", "task.dataset.name")


def with_datasets(data: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A study's plain values with other names of data sets.

    Args:
        data: The values, among them `task`.
        change: From a name to another one.
    """

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [named(one) for one in value]
        if isinstance(value, dict):
            return {key: named(inner) if key in ("name", "values") else walk(inner) for key, inner in value.items()}
        return value

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(inner) if key in FIELDS else walk(inner) for key, inner in value.items()}
        return [walk(one) for one in value] if isinstance(value, list) else value

    task = data["task"]
    changed: dict[str, Any] = walk({**data, "task": {**task, "dataset": named(task["dataset"])}})
    return changed


def without_folder(name: str) -> str:
    """A data set's name without the folder of its file, which affects no result."""
    head, colon, path = name.partition(":")
    return f"{head}:{PurePosixPath(path).name}" if colon and "/" in path else name
