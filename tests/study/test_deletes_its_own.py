"""Deleting a study deletes what it wrote, and nothing else that is in its folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from olfl_ray.study import Study
from olfl_ray.testing.studies import HandMadeStudy


def delete(home: Path) -> None:
    Study.open("made", home=home).delete(keep_runs=True)


def test_all_that_it_wrote_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "made"
    made = HandMadeStudy(folder, tmp_path)
    made.run("online/0", (10, 20), "finished")
    Study.open("made", home=tmp_path).report()
    for place in (folder, folder / "trials" / "online" / "0" / "attempt-1"):
        (place / f".tmp-{os.getpid()}-{'0' * 16}").write_text("left by a process that was killed while it wrote")
    delete(tmp_path)
    assert not folder.exists()


def test_what_was_there_before_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "studies" / "made"
    mine = [folder / name for name in ("thesis.tex", "trials/2024.csv", "ledger/2024.ods", "cache/a.bin", ".tmp-mine")]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    inner = HandMadeStudy(folder / "inner", tmp_path)
    inner.run("online/0", (10,), "finished")
    (tmp_path / "elsewhere" / "attempt-1").mkdir(parents=True)
    (tmp_path / "elsewhere" / "attempt-1" / "a").touch()
    HandMadeStudy(folder, tmp_path).run("online/0", (10,), "finished")
    (folder / "trials" / "online" / "1").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        delete(tmp_path)
    assert all(file.read_text() == "mine" for file in mine)
    assert len(inner.storage.keys("ledger/")) > 1, "another study in the folder is not touched"
    assert (tmp_path / "elsewhere" / "attempt-1" / "a").exists()
    assert not (folder / "ledger" / "000000001.json").exists()
    assert not (folder / "trials" / "online" / "0").exists()
    assert "they stay" in caplog.text
