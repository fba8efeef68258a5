"""A data set's file counts by its name: where it lies affects no result; its content has a digest of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olfl_ray.driver import resolved
from olfl_ray.spec import StudySpec, parse_fields


def study(name: str, **arm: Any) -> StudySpec:
    return parse_fields(
        {
            "name": "wine",
            "task": {"dataset": {"name": name, "target": "y"}},
            "search": {"parameters": {"task.dataset.name": {"values": [name, "digits"]}}},
            "arms": {"online": {"trials": 1, **arm}},
        }
    )


def test_folder_of_a_file_is_no_part_of_the_digest(tmp_path: Path) -> None:
    assert study("csv:/a/wine.csv").digest == study("csv:wine.csv").digest != study("csv:/a/beer.csv").digest
    assert study("mine.data:wine").digest != study("mine:wine").digest


def test_relative_paths_are_resolved_wherever_a_spec_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = study("csv:wine.csv", set={"task.dataset": {"name": "csv:own.csv", "target": "csv:not.csv"}})
    found = resolved(spec)
    assert found.task.dataset.name == f"csv:{tmp_path}/wine.csv"
    assert found.arms["online"].set["task.dataset"] == {"name": f"csv:{tmp_path}/own.csv", "target": "csv:not.csv"}
    assert found.search.parameters["task.dataset.name"].values == (f"csv:{tmp_path}/wine.csv", "digits")
    assert found.digest == spec.digest
    assert resolved(found) == found
