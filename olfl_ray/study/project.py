"""The first files of a user's own study: a spec with its schema, a module of builders, and its test."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from olfl_ray.errors import StudyError
from olfl_ray.spec import NAME
from olfl_ray.storage import expanded, make_folder

__all__ = ["write_project"]

TEMPLATES = {"study.yaml": "study.yaml", "builders.py": "builders.py.txt", "test_builders.py": "test_builders.py.txt"}
"""File that is written -> file of `template`."""
SCHEMA = "study.schema.json"


def write_project(folder: str | Path, name: str | None = None) -> list[Path]:
    """Write a study that runs as it stands: `study.yaml`, `builders.py`, `test_builders.py` and the spec's JSON Schema.

    Args:
        folder: Where; made if it is not there.
        name: The study's name; None: that of the folder.

    Returns:
        The files, the spec first.

    Raises:
        StudyError: One of them exists, or the name is not a study's; nothing was written.
    """
    from olfl_ray.study.reference import schema

    place = expanded(str(folder)).absolute()
    name = place.resolve().name if name is None else name
    if not re.fullmatch(NAME, name, re.ASCII):
        raise StudyError(f"`name={name}` is no name of a study: use at most 64 letters, digits, `_`, `.`, `-`")
    template = files("olfl_ray.study") / "template"
    contents = {file: (template / source).read_text("utf-8") for file, source in TEMPLATES.items()}
    contents[SCHEMA] = json.dumps(schema(), indent=2) + "\n"
    for file in contents:
        if (place / file).exists():
            raise StudyError(f"{place / file}: exists already and is not overwritten; choose another folder")
    make_folder(place)
    for file, content in contents.items():
        with (place / file).open("x", encoding="utf-8") as stream:
            stream.write(content.replace("{{name}}", name))
    return [place / file for file in contents]
