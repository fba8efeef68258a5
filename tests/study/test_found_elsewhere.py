"""A study that another home folder began is driven where it was found, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.conducting import study

from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import Event, Ledger
from olfl_ray.remote import list_on, locate
from olfl_ray.storage import Lease, Storage
from olfl_ray.study import Home, Study

VERBS: dict[str, Callable[..., Any]] = {
    "resume": lambda name, home: Study.open(name, home=home).resume(progress=False),
    "retry": lambda name, home: Study.open(name, home=home).retry(progress=False),
    "extend": lambda name, home: Study.open(name, home=home).extend(1, progress=False),
}


@pytest.fixture
def begun(tmp_path: Path) -> Storage:
    """A study whose spec names no storage, in the first home folder."""
    spec = study()
    storage = Home.find(tmp_path / "first").storage(spec.name)
    Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    return storage


@pytest.mark.parametrize("verb", VERBS)
def test_going_on_takes_the_lease_of_the_study_that_was_found(begun: Storage, tmp_path: Path, verb: str) -> None:
    second = Home.find(tmp_path / "second")
    locate("s", home=second, storage=str(tmp_path / "first" / "studies"))
    with Lease.acquire(begun, "another driver"), pytest.raises(StudyError, match="held by another driver") as refused:
        VERBS[verb]("s", home=second)
    assert str(refused.value).startswith(begun.url)
    assert not (second.study_folder("s") / "ledger").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_of_another_name_than_its_study_is_not_driven(begun: Storage, tmp_path: Path, verb: str) -> None:
    (tmp_path / "first" / "studies" / "s").rename(tmp_path / "moved")
    second = Home.find(tmp_path / "second")
    second.study_folder("s").mkdir(parents=True)
    (second.study_folder("s") / "storage.url").write_text(str(tmp_path / "moved"))
    with pytest.raises(StudyError, match="give that folder its name, s"):
        VERBS[verb]("s", home=second)
    assert not (second.study_folder("s") / "ledger").exists()


def test_a_file_where_the_pointer_belongs_is_named(begun: Storage, tmp_path: Path) -> None:
    second = Home.find(tmp_path / "second")
    second.studies.mkdir()
    second.study_folder("s").touch()
    with pytest.raises(SetupError, match=f"^{second.study_folder('s')}: can't record the study's storage there"):
        locate("s", home=second, storage=str(tmp_path / "first" / "studies"))


@pytest.mark.parametrize("place", ["a-file", "nothing"])
def test_a_place_that_is_no_folder_is_not_listed(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(StudyError, match=f"`storage=`: .*/{place} is not a folder"):
        list(list_on(None, str(tmp_path / place)))


def test_a_driver_that_is_overtaken_before_its_first_event_stops_with_one_sentence(
    begun: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(Ledger):
        def append(self, event: Event) -> None:
            Ledger.load(begun).append(event)  # by another driver, a moment before
            super().append(event)

    monkeypatch.setattr(sys.modules["olfl_ray.driver.look"], "Ledger", Overtaken)
    with pytest.raises(StudyError, match="'s': another driver took it over"):
        VERBS["resume"]("s", home=Home(tmp_path / "first"))
    assert len(Ledger.load(begun).events) == 2
