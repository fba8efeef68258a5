"""A study's conductor on a real ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from olfl_ray.ledger import Ledger, StopRequest
from olfl_ray.spec import StudySpec
from olfl_ray.storage import open_storage
from olfl_ray.sweep import Conductor


@pytest.fixture
def conduct(tmp_path: Path) -> Callable[..., Conductor]:
    """A conductor over the ledger in a folder: the first call begins the study there, later ones go on with it."""

    def start(spec: StudySpec, folder: str = "study", only: tuple[str, ...] | None = None) -> Conductor:
        storage = open_storage(tmp_path / folder)
        if not storage.keys("ledger/"):
            Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
        ledger = Ledger.load(storage)
        return Conductor(spec, ledger, StopRequest(storage, ledger.state.epoch), only=only)

    return start
