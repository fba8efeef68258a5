"""From what a Python program gives to a spec's plain values: settings become mappings, builders their dotted names."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from olfl_ray.errors import SpecError
from olfl_ray.plugins import name_of_builder

__all__ = ["as_plain"]

_BUILDERS = re.compile(
    r"(task\.(dataset|model|metrics)|learner\.(optimizer|schedule)|meta\.optimizer|search\.(sampler|pruner)|tracking)(\.\d+)?(\.name)?|task\.loss|learner\.method|loss\.name"
)
"""Fields that name a builder; in arms and in the search space they are named again."""
_ARM = re.compile(r"arms\.[^.]+\.(set|parameters)\.|search\.parameters\.")


def as_plain(value: Any, field: str = "") -> Any:
    """A value as YAML would give it; what has no such form stays, and is refused where the spec is checked.

    Args:
        value: Settings, mappings, lists and tuples of them, functions and classes, NumPy's scalars, paths.
        field: Its dotted name.

    Raises:
        SpecError: A builder is one that no other process can import.
    """
    if isinstance(value, BaseModel):
        value = _given(value)
    if isinstance(value, dict):
        return {key: as_plain(inner, f"{field}.{key}" if field else str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(inner, f"{field}.{index}") for index, inner in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if callable(value) and _BUILDERS.fullmatch(_ARM.sub("", re.sub(r"\.values\.\d+$", "", field))):
        try:
            return name_of_builder(value)
        except ValueError as error:
            raise SpecError(field, str(error)) from None
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _given(settings: BaseModel) -> dict[str, Any]:
    """The fields that somebody set, by the names that YAML has for them, and the variant's name."""
    fields = type(settings).model_fields
    found = {
        info.alias or name: getattr(settings, name)
        for name, info in fields.items()
        if name in settings.model_fields_set or name == "name"
    }
    return {**found, **(settings.model_extra or {})}
