"""What a study's data are is said before it starts, kept with it, and shown with its classes' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from olfl_ray.driver import Home, dataset_lines, dataset_notes
from olfl_ray.driver.check import check_trials
from olfl_ray.driver.datasets import DATASETS, stored_lines
from olfl_ray.driver.look import report_or_warning
from olfl_ray.ledger import Ledger
from olfl_ray.spec import StudySpec
from olfl_ray.storage import open_storage


def named() -> tuple[list[list[float]], list[str]]:
    return [[float(n), 1.0] for n in range(30)], ["cat", "dog", "owl"] * 10


def spec(dataset: str) -> StudySpec:
    arms = {"baseline": {"trials": 1}, "online": {"trials": 1}}
    return StudySpec.model_validate(
        {"name": "s", "task": {"dataset": dataset}, "search": {"parameters": {}}, "arms": arms}
    )


def test_classes_are_shown_by_their_names_once_for_all_arms(tmp_path: Path) -> None:
    notes = dataset_notes(spec(f"{__name__}:named"), Home.find(tmp_path))
    (line,) = dataset_lines(notes)
    assert "30 examples, classification; classes 0 to 2: cat, dog, owl" in line
    storage = open_storage(tmp_path / "study")
    storage.write(DATASETS, json.dumps(notes).encode())
    assert stored_lines(storage) == [line]
    (plain,) = dataset_lines(dataset_notes(spec("digits"), Home.find(tmp_path)))
    assert plain.endswith("1797 examples, classification")


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"a": 1}', b'{"a": {"name": "x"}}', b"\xff"])
def test_a_study_that_does_not_say_what_its_data_are_is_shown_all_the_same(
    content: bytes | None, tmp_path: Path
) -> None:
    storage = open_storage(tmp_path / "study")
    if content is not None:
        storage.write(DATASETS, content)
    assert stored_lines(storage) == []


def test_a_report_that_cant_be_written_is_a_warning_and_fails_no_study(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, study = Home.find(tmp_path / "home"), spec("digits")
    storage = open_storage(home.study_folder("s"))
    ledger = Ledger.create(storage, study.model_dump(mode="json", by_alias=True), study.digest, "s", {})
    folder = home.report_folder("s")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(tmp_path)
    page = report_or_warning(study, ledger.state, storage, home)
    assert not page.exists()
    assert "report" in caplog.text
    folder.unlink()
    assert report_or_warning(study, ledger.state, storage, home).exists()


def test_sizes_shares_and_the_best_constant_are_recorded_and_no_part_of_the_digest(tmp_path: Path) -> None:
    study = spec(f"{__name__}:named")
    facts = check_trials(study, Home.find(tmp_path))["online"]
    assert facts.classes == [10, 10, 10]
    assert (facts.shape, facts.outputs) == ([2], 3)
    assert sum(facts.splits[name] for name in ("train", "meta", "selection", "test")) == 30
    assert facts.trivial["error"] == pytest.approx(2 / 3)
    assert study.digest == spec(f"{__name__}:named").digest
