"""Data sets with several tasks: the built-in ones, a builder's dict, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from olfl_ray import data
from olfl_ray.data import Dataset
from olfl_ray.data.dataset_file import read_dataset, write_dataset
from olfl_ray.data.load import of_object
from olfl_ray.data.multitask import SUPPORT
from olfl_ray.errors import SpecError
from olfl_ray.tasks import Head

X = np.arange(24.0).reshape(12, 2)
LABELS, NUMBERS = np.array(["a", "b", "c"] * 4), np.linspace(0, 1, 12).reshape(-1, 1)


def test_digits_have_four_tasks_of_the_same_images(tmp_path: Path) -> None:
    found = data.load("digits-tasks", {}, cache=tmp_path, root=None)
    assert [(head.name, head.outputs) for head in found.heads] == [
        ("digit", 10),
        ("odd", 2),
        ("at_least_5", 2),
        ("ink", 1),
    ]
    digit = found.y[:, :10].argmax(1)
    assert torch.equal(found.y[:, 10:12].argmax(1), digit % 2)
    assert torch.equal(found.y[:, 12:14].argmax(1), (digit >= 5).long())
    assert torch.equal(found.y[:, 14], found.x.sum((1, 2, 3)))
    assert found.x.shape == (1797, 1, 8, 8)


def test_tasks_of_shared_support_need_only_its_features(tmp_path: Path) -> None:
    found = data.load("shared-support", {}, cache=tmp_path, root=None)
    weights = torch.linalg.lstsq(found.x.double(), found.y.double()).solution
    size = weights.norm(dim=1)
    assert sorted(size.argsort(descending=True)[: len(SUPPORT)].tolist()) == list(SUPPORT)


def test_chosen_heads_are_kept_in_the_chosen_order(tmp_path: Path) -> None:
    found = data.load("digits-tasks", {}, cache=tmp_path, root=None)
    some = data.for_task(found, {"heads": ["ink", "odd"]})
    assert torch.equal(some.y, found.y[:, [14, 10, 11]])
    assert some.outputs == 3
    assert data.for_task(found, {}) is found


def test_splits_do_not_depend_on_the_chosen_heads(tmp_path: Path) -> None:
    """So an unseen task's test examples are none that another choice of heads trained on."""
    found = data.load("digits-tasks", {}, cache=tmp_path, root=None)
    some = data.for_task(data.for_task(found, {"heads": ["ink", "odd"]}), {"heads": ["odd"]})
    one, other = (data.split(each, study_seed=1, seed=2, test=0.2, meta=0.1, selection=0.1) for each in (found, some))
    assert torch.equal(one.test, other.test)
    assert torch.equal(one.train, other.train)


def test_dict_of_targets_becomes_heads() -> None:
    found = of_object("mine:data", (X, {"label": LABELS, "size": NUMBERS}))
    assert found.kind == "multitask"
    assert found.heads == (
        Head(name="label", kind="classification", outputs=3, classes=("a", "b", "c")),
        Head(name="size", kind="regression", outputs=1),
    )
    assert found.y[4].tolist() == pytest.approx([0, 1, 0, NUMBERS[4, 0]])
    other = of_object("mine:data", (X, {"kind": LABELS, "size": NUMBERS}))
    assert other.fingerprint != found.fingerprint, "names of heads are content"


def test_declared_kind_of_a_head_decides() -> None:
    heads = (Head(name="count", kind="regression"),)
    found = of_object("m:d", Dataset(name="d", kind="multitask", x=X, y={"count": np.arange(12) % 3}, heads=heads))  # type: ignore[arg-type]
    assert found.heads[0] == Head(name="count", kind="regression", outputs=1)


@pytest.mark.parametrize(
    ("y", "word"),
    [
        ({"a b": LABELS}, "a b"),
        ({}, "heads"),
        ({"label": LABELS[:5]}, "same"),
        ({"label": np.array(["a"] * 12)}, "label"),
    ],
)
def test_wrong_heads_are_refused(y: dict[str, np.ndarray], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        of_object("mine:data", (X, y))


def test_file_keeps_the_heads(tmp_path: Path) -> None:
    found = of_object("mine:data", (X, {"label": LABELS, "size": NUMBERS}))
    write_dataset(tmp_path / "d.arrow", found)
    again = read_dataset(tmp_path / "d.arrow")
    assert again.heads == found.heads
    assert torch.equal(again.y, found.y)
