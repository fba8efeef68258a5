"""Data sets in files, such as `csv:FILE`. Each format is a file of this package."""

from functools import cache

from olfl_ray.data.formats.base import FIELD, FileFormat
from olfl_ray.errors import SpecError
from olfl_ray.plugins import nearest
from olfl_ray.registry import Registry

__all__ = ["FORMATS", "FileFormat", "file_names", "format_of"]

FORMATS = Registry("olfl_ray.data.formats", FileFormat)  # type: ignore[type-abstract]
"""Formats by name."""


def file_names() -> str:
    """How a file is named, for messages: `csv:PATH, parquet:PATH`."""
    return ", ".join(f"{head}:PATH" for head in FORMATS.names())


@cache
def format_of(name: str) -> type[FileFormat] | None:
    """The format of a data set's name; None: it names no file.

    Args:
        name: `FORMAT:PATH`, or another name.

    Raises:
        SpecError: It names a file, but there is no such format.
    """
    head, colon, path = name.partition(":")
    known = FORMATS.names()
    if colon and head in known:
        return FORMATS.find(head, FIELD)
    if colon and any(sign in path for sign in "./~"):
        raise SpecError(
            FIELD, f"there is no format {head!r}{nearest(head, known)}; name a file as one of {file_names()}"
        )
    return None
