"""What a study's data are is said before it starts, kept with it, and shown with its classes' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from olfl_ray.driver import Home, dataset_lines, dataset_notes
from olfl_ray.driver.datasets import DATASETS, stored_lines
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
