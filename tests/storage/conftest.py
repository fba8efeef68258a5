"""Storages under test, and real processes besides the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import olfl_ray.errors
from olfl_ray.storage import Storage, open_storage

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["path", "file-url", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """One empty storage of each kind; a new implementation joins the contract suite here."""
    root = tmp_path / "a study's storage"
    if request.param == "s3":
        return open_storage(request.getfixturevalue("s3_place"))
    return open_storage({"path": root, "file-url": root.as_uri()}[request.param])


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start `python -c script arguments...` with pipes; processes still running at the end are killed by their id.

    `env` is added to the environment; None removes a variable.
    """
    children: list[subprocess.Popen[str]] = []
    package = str(Path(olfl_ray.errors.__file__).parents[1])

    def start(script: str, *arguments: str, env: Mapping[str, str | None] | None = None) -> subprocess.Popen[str]:
        values = os.environ | {"PYTHONPATH": package} | (env or {})
        child = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in values.items() if value is not None},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()
