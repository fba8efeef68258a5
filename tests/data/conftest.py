"""Data sets prepared once for all tests of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from olfl_ray import data


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Clear the cache, so that no test gets what another one loaded."""
    data.forget()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of prepared data sets."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def digits(prepared: Path) -> data.Dataset:
    """Classes."""
    return data.load("digits", {}, cache=prepared, root=None)


@pytest.fixture(scope="session")
def diabetes(prepared: Path) -> data.Dataset:
    """Targets."""
    return data.load("diabetes", {}, cache=prepared, root=None)
