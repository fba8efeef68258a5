"""Did you mean: the field of a form that a mistyped or misplaced dotted name most likely means."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from olfl_ray.spec.part import PartSpec

__all__ = ["did_you_mean", "dotted_fields"]


def did_you_mean(form: type[BaseModel], field: str, *, within: str = "") -> str:
    """` (did you mean ...?)` with a complete dotted field of the form, or nothing.

    A setting of another kind of the same section is no mistyped one: it is said to belong there.

    A field of the same section comes first, then one of the same name in another section (`learner.lr` is
    `learner.optimizer.lr`), then whatever is spelled alike.

    Args:
        form: The form.
        field: The name that it does not have.
        within: Where the form itself lies in a spec; empty: it is the spec.
    """
    prefix = f"{within}." if within else ""
    *path, last = field.split(".")
    here: list[Any] = [form]
    for part in path:
        here = [inner for kind in here for inner in _inside(kind, part)]
    if any(name == last for kind in here for name, _ in _fields(kind)):
        return " (it belongs to another `name` there)"
    near = difflib.get_close_matches(last, [name for kind in here for name, _ in _fields(kind)], 1)
    if near:
        return f" (did you mean {prefix + '.'.join([*path, near[0]])!r}?)"
    known = list(dotted_fields(form))
    moved = [other for other in known if other.rpartition(".")[2] == last]
    found = difflib.get_close_matches(field, moved, 1, cutoff=0) or difflib.get_close_matches(field, known, 1)
    return f" (did you mean {prefix + found[0]!r}?)" if found else ""


def dotted_fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a form, those of every kind of a section among them; none inside a mapping."""
    for name, inner in _fields(kind):
        yield prefix + name
        yield from dotted_fields(inner, f"{prefix}{name}.")


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """Name, as it is written, and kind of the fields of a model and of the parts that it may name, or of each of a union."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            yield info.alias or name, info.annotation
        if issubclass(kind, PartSpec):
            for form in kind.forms():
                yield from _fields(form)
    elif get_origin(kind) is not dict:
        for inner in get_args(kind):
            yield from _fields(inner)


def _inside(kind: Any, part: str) -> list[Any]:
    """Kinds of what has the name `part`: a field, or a key of a mapping."""
    if get_origin(kind) is dict:
        return [get_args(kind)[1]]
    if get_args(kind):
        return [found for inner in get_args(kind) for found in _inside(inner, part)]
    return [inner for name, inner in _fields(kind) if name == part]
