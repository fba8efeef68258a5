"""A study's ledger on a real disk or a real S3 endpoint, and real processes besides the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import olfl_ray.errors
from olfl_ray.ledger import Ledger
from olfl_ray.storage import Storage, open_storage

Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The study's storage, still empty."""
    return open_storage(tmp_path if request.param == "disk" else request.getfixturevalue("s3_place"))


@pytest.fixture
def ledger(store: Storage) -> Ledger:
    """A new study's ledger."""
    return Ledger.create(store, {"name": "digits", "seed": 0}, "abc123", "digits", {"torch": "2.13.0"})


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start `python -c script arguments...` with pipes; processes still running at the end are killed by their id."""
    children: list[subprocess.Popen[str]] = []
    package = str(Path(olfl_ray.errors.__file__).parents[1])

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": package},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()
