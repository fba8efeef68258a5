"""Files that were made to exhaust memory or time, or to confuse a reader: refused in one sentence, quickly."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from olfl_ray import data
from olfl_ray.data import table
from olfl_ray.data.formats import csv, folder
from olfl_ray.data.formats import parquet as parquet_format
from olfl_ray.errors import SpecError

MIB = 2**20


def read(name: str, tmp_path: Path, **options: Any) -> data.Dataset:
    return data.load(name, options, cache=tmp_path / "cache", root=None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / "images" / name / "more").mkdir(parents=True)
        for index in range(3):
            pixels = np.full((8, 8, 3), 40 * index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / "more" / f"{index}.png")
    return tmp_path / "images"


def test_links_in_an_image_folder_that_lead_back_are_refused(images: Path, tmp_path: Path) -> None:
    for name in "xy":  # two of them: 2 ** 40 paths
        (images / "a" / name).symlink_to(".")
    with pytest.raises(SpecError, match=r"is a link to .*remove it"):
        read(f"folder:{images}", tmp_path)


def test_links_in_an_image_folder_that_multiply_are_refused(images: Path, tmp_path: Path) -> None:
    (images / "a" / "again").symlink_to("more")
    with pytest.raises(SpecError, match=r"again is a link to|more is a link to"):
        read(f"folder:{images}", tmp_path)


def test_a_class_folder_may_be_a_link(images: Path, tmp_path: Path) -> None:
    (images / "a").rename(tmp_path / "elsewhere")
    (images / "a").symlink_to(tmp_path / "elsewhere")
    assert len(read(f"folder:{images}", tmp_path).y) == 6


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_is_no_image(kind: str, images: Path, tmp_path: Path) -> None:
    made = images / "a" / "z.png"
    if kind == "pipe":
        os.mkfifo(made)
    else:
        made.symlink_to("nothing")
    with pytest.raises(SpecError, match=r"z\.png is a pipe"):
        read(f"folder:{images}", tmp_path)


def test_a_small_file_that_holds_much_is_refused_before_it_is_read(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (table, csv, folder, parquet_format):
        monkeypatch.setattr(module, "free_memory", lambda: MIB)
    rows = 100_000
    parquet.write_table(pa.table({"a": np.zeros(rows), "y": np.arange(rows) % 2}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 50_000
    text = "".join(f"{row % 1000},{row % 2}\n" for row in range(2000))
    (tmp_path / "many.csv").write_text(f"a,y\n{text}")
    (tmp_path / "long.csv").write_text("a,y\n" + "1,0\n2,1\n" * 100_000)
    for name, options, field in (
        ("parquet:bomb.parquet", {"target": "y"}, "task.dataset"),
        ("csv:many.csv", {"target": "y", "categorical": "a"}, "task.dataset.categorical"),
        ("csv:long.csv", {"target": "y"}, "task.dataset"),
        (f"folder:{images}", {"size": 4096}, "task.dataset.size"),
    ):
        head, _, path = name.partition(":")
        tracemalloc.start()
        with pytest.raises(SpecError, match="GB") as refused:
            read(f"{head}:{tmp_path / path}", tmp_path, **options)
        assert refused.value.field == field
        assert head == "folder" or tracemalloc.get_traced_memory()[1] < 2 * MIB
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("encoding", name) for name in ("zip", "rot13", "hex", "undefined", "no")),
        ("delimiter", "é"),
        ("delimiter", "\n"),
    ],
)
def test_what_is_no_encoding_or_delimiter_is_refused(option: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,0\n2,1\n")
    with pytest.raises(SpecError) as refused:
        read(f"csv:{tmp_path / 'a.csv'}", tmp_path, target="y", **{option: value})
    assert refused.value.field == f"task.dataset.{option}"
