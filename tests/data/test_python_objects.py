"""`olfl_ray.dataset`: tables, arrays and torch data sets as files that every trial can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import olfl_ray as ol
from olfl_ray import data
from olfl_ray.errors import SpecError
from olfl_ray.spec import parse_fields

X, Y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
FRAME = pd.DataFrame({"a": X[:, 0], "color": ["red", "blue"] * 20, "y": np.where(Y == 1, "yes", "no")})


class Items(torch.utils.data.Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def load(section: dict[str, Any], tmp_path: Path) -> data.Dataset:
    spec = parse_fields({"name": "a", "task": {"dataset": section}, "search": {"parameters": {}}})
    named = spec.task.dataset
    return data.load(named.name, named.options, cache=tmp_path / "cache", root=None)


@pytest.mark.parametrize("given", [FRAME, pa.Table.from_pandas(FRAME)], ids=["pandas", "Arrow"])
def test_a_table_has_the_options_of_a_file(given: Any, tmp_path: Path) -> None:
    section = ol.dataset(given, name="wine", home=tmp_path, target="y", categorical=["color"])
    found = load(section, tmp_path)
    assert (found.kind, found.classes, found.columns) == (
        "classification",
        ("no", "yes"),
        ("a", "color=blue", "color=red"),
    )
    assert np.allclose(found.x[:, 0].numpy(), X[:, 0])
    assert ol.dataset(given, name="wine", home=tmp_path, target="y", categorical=["color"]) == section
    other = ol.dataset(FRAME.assign(a=1.0), name="wine", home=tmp_path, target="y", categorical=["color"])
    assert other["name"] != section["name"], "a file is named after its content"


@pytest.mark.parametrize(
    ("given", "dtype", "shape"),
    [
        ((X, Y), torch.float64, (3,)),
        ((torch.as_tensor(X), torch.as_tensor(Y)), torch.float64, (3,)),
        (Items([(torch.as_tensor(x), int(y)) for x, y in zip(X, Y, strict=True)]), torch.float64, (3,)),
        (Items([(np.arange(5) + y, torch.tensor(y)) for y in Y]), torch.int64, (5,)),
        (Items([(Image.new("RGB", (8, 6)), y) for y in Y]), torch.uint8, (3, 6, 8)),
        (torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), torch.float64, (3,)),
    ],
    ids=["NumPy", "torch", "torch data set", "ids", "images", "TensorDataset"],
)
def test_arrays_and_torch_data_sets(given: Any, dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    found = load(ol.dataset(given, name="mine", home=tmp_path), tmp_path)
    assert (found.kind, found.outputs, found.x.dtype, tuple(found.x.shape[1:])) == ("classification", 2, dtype, shape)
    assert found.y.tolist() == Y.tolist()


def test_a_data_set_keeps_what_it_declares(tmp_path: Path) -> None:
    declared = data.Dataset(name="mine", kind="regression", x=X, y=Y, test=[1, 3], scaled=False)  # type: ignore[arg-type]
    found = load(ol.dataset(declared, name="mine", home=tmp_path), tmp_path)
    assert found.test is not None
    assert (found.kind, found.test.tolist(), found.scaled) == ("regression", [1, 3], False)


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (FRAME, {"target": "y", "name": "a/b"}, "letters, digits"),
        ((X, Y), {"target": "y"}, "option of a table"),
        (X, {}, "is a ndarray; give a pandas"),
        ("wine.csv", {}, "is a str; give a pandas"),
        (Items([]), {}, "at least one"),
        (Items([1, 2]), {}, r"items \(x, y\)"),
        (Items([(np.zeros(2), 0), (np.zeros(3), 1)]), {}, "different shapes"),
        ((X, Y[:-1]), {}, "must be the same"),
    ],
)
def test_mistake_is_one_message(given: Any, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=says):
        ol.dataset(given, home=tmp_path, **options)
    assert not list((tmp_path / "data" / "objects").glob("*"))


def test_wrong_option_of_a_table_is_refused_where_it_is_given(tmp_path: Path) -> None:
    section = ol.dataset(FRAME, home=tmp_path, target="z")
    with pytest.raises(SpecError, match="no column 'z'"):
        load(section, tmp_path)
