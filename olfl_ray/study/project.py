"""The first files of a user's own study: a spec with its schema, a module of builders, and its test."""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path

from olfl_ray.errors import SetupError, StudyError
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
        SetupError: The folder can't be written; what was written of them is removed again.
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
        if os.path.lexists(place / file):
            raise StudyError(f"{place / file}: exists already and is not overwritten; choose another folder")
    written: list[Path] = []
    try:
        make_folder(place)
        for file, content in contents.items():
            with (place / file).open("x", encoding="utf-8") as stream:
                written.append(place / file)
                stream.write(content.replace("{{name}}", _as_yaml(name)))
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SetupError(f"{place}: can't be written ({error.strerror}); choose another folder") from None
        raise
    return written


def _as_yaml(name: str) -> str:
    """A name in YAML: one that would be read as a number, a date or null is quoted."""
    from ruamel.yaml import YAML

    return name if YAML(typ="safe", pure=True).load(name) == name else json.dumps(name)
