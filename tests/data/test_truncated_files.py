"""Files that are missing, truncated or altered: one message that names the file and both ways out; nothing partial remains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from olfl_ray import data
from olfl_ray.errors import DataError, SetupError

LABELS = "mnist/train-labels-idx1-ubyte.gz"


@pytest.fixture
def copied(olfl_data: Path, tmp_path: Path) -> Path:
    """A private OLFL_DATA folder with mnist and california-housing."""
    root = tmp_path / "given"
    for name in ("mnist", "california-housing"):
        shutil.copytree(olfl_data / name, root / name)
        for file in (root / name).iterdir():
            file.chmod(0o644)
        (root / name).chmod(0o755)
    return root


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("corrupt", [truncate, alter, empty, Path.unlink, folder_instead])
def test_corrupt_file_is_named_with_both_ways_to_fix_it(
    corrupt: Callable[[Path], None], copied: Path, tmp_path: Path
) -> None:
    corrupt(copied / LABELS)
    cache = tmp_path / "cache"
    with pytest.raises(DataError) as caught:
        data.load("mnist", {}, cache=cache, root=copied)
    message = str(caught.value)
    assert message.startswith(str(copied / LABELS))
    assert "copy it again" in message or "put the file there" in message
    assert "unset OLFL_DATA to download" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_repaired_file_is_used(copied: Path, olfl_data: Path, tmp_path: Path) -> None:
    file = copied / "california-housing" / "cal_housing.data.gz"
    alter(file)
    with pytest.raises(DataError):
        data.load("california-housing", {}, cache=tmp_path / "cache", root=copied)
    shutil.copyfile(olfl_data / "california-housing" / file.name, file)
    assert len(data.load("california-housing", {}, cache=tmp_path / "cache", root=copied).x) == 20640


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_message_for_a_truncated_prepared_file_says_to_delete_it(keep: float, tmp_path: Path) -> None:
    complete = data.load("digits", {}, cache=tmp_path, root=None)
    before = complete.x.clone()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    truncated = tmp_path / "truncated"
    truncated.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    truncated.replace(file)
    with pytest.raises(DataError, match=r"truncated|corrupt|checksum") as caught:
        data.load("digits", {}, cache=tmp_path, root=None)
    assert str(caught.value).startswith(str(file))
    file.unlink()
    assert torch.equal(data.load("digits", {}, cache=tmp_path, root=None).x, before)


def test_cache_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "home"
    place.write_text("")
    with pytest.raises(SetupError, match="can't be written") as caught:
        data.load("digits", {}, cache=place / "cache", root=None)
    assert str(caught.value).startswith(str(place / "cache"))


def test_preparing_leaves_one_file(tmp_path: Path) -> None:
    data.load("diabetes", {}, cache=tmp_path, root=None)
    assert [file.suffix for file in tmp_path.iterdir()] == [".arrow"]
