"""Folders of images, one per class: pixels, classes, a test set, and one message for each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from olfl_ray import data
from olfl_ray.errors import SpecError


def image(path: Path, value: int, height: int = 6, width: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[0, :, 1] = 9
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten cats of value i, ten dogs of value 100 + i."""
    for index in range(10):
        image(tmp_path / "pets" / "cat" / f"{index}.png", index)
        image(tmp_path / "pets" / "dog" / f"{index}.png", 100 + index)
    return tmp_path / "pets"


def load(folder: Path, **options: Any) -> data.Dataset:
    return data.load(f"folder:{folder}", options, cache=folder.parent / "cache", root=None)


def test_images_are_pixels_and_folders_classes(folder: Path) -> None:
    found = load(folder)
    assert (found.name, found.kind, found.classes, found.test) == ("pets", "classification", ("cat", "dog"), None)
    assert (found.x.dtype, tuple(found.x.shape), found.y.tolist()) == (torch.uint8, (20, 3, 6, 4), [0] * 10 + [1] * 10)
    assert found.x[:, 0, 0, 0].tolist() == [*range(10), *range(100, 110)]
    assert (found.x[:, 1, 0] == 9).all(), "channels first, then rows"
    assert tuple(load(folder, channels=1, size=[3, 5]).x.shape) == (20, 1, 3, 5)
    assert tuple(load(folder, size=8).x.shape) == (20, 3, 8, 8)


def test_test_set_in_a_folder_of_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "train")
    image(tmp_path / "split" / "test" / "dog" / "a.png", 200)
    image(tmp_path / "split" / "test" / "cat" / "b.png", 50)
    found = load(tmp_path / "split", test="test")
    assert found.test is not None
    assert (found.test.tolist(), found.y[20:].tolist()) == ([20, 21], [0, 1])
    (tmp_path / "split" / "test" / "bird").mkdir()
    image(tmp_path / "split" / "test" / "bird" / "c.png", 1)
    with pytest.raises(SpecError, match="train has the classes cat, dog, but test bird, cat, dog"):
        load(tmp_path / "split", test="test")


def test_changed_image_is_another_data_set_and_a_worker_keeps_the_first(folder: Path) -> None:
    first = load(folder)
    image(folder / "cat" / "3.png", 77)
    changed = load(folder)
    assert changed.fingerprint != first.fingerprint
    kept = data.load(f"folder:{folder}", {}, cache=folder.parent / "cache", root=None, wanted=first.fingerprint)
    assert torch.equal(kept.x, first.x)


def other_size(folder: Path) -> None:
    image(folder / "dog" / "x.png", 1, height=7)


def broken(folder: Path) -> None:
    (folder / "cat" / "0.png").write_bytes(b"no image")


def empty_class(folder: Path) -> None:
    (folder / "bird").mkdir()


def no_classes(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).rename(folder.parent / name)


def one_class(folder: Path) -> None:
    (folder / "cat").rename(folder.parent / "cat")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "field", "says"),
    [
        (other_size, {}, "size", r"6x4 pixels, .*x.png 7x4 .*give size"),
        (broken, {}, "", "0.png can't be read as an image"),
        (empty_class, {}, "", "no valid file for the classes bird"),
        (no_classes, {}, "", "find any class folder"),
        (one_class, {}, "", "only one class folder, 'dog'"),
        (nothing, {"test": "tst"}, "train", "train is not a folder"),
        (nothing, {"channels": 2}, "channels", "1 or 3"),
        (nothing, {"size": 0}, "size", "greater than or equal to 1"),
        (nothing, {"siz": 8}, "siz", "did you mean 'task.dataset.size'"),
    ],
)
def test_mistake_is_one_message_with_its_field(
    spoil: Callable[[Path], None], options: dict[str, Any], field: str, says: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(SpecError) as caught:
        load(folder, **options)
    assert re.search(says, caught.value.problem), caught.value.problem
    assert caught.value.field.removeprefix("task.dataset").lstrip(".").startswith(field)
    assert "\n" not in str(caught.value)


def test_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(SpecError, match="is not a folder"):
        load(folder / "cat" / "0.png")
