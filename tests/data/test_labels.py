"""Several columns of zeros and ones are labels, from arrays, tables and files; what is ambiguous or invalid is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from olfl_ray import data
from olfl_ray.data.load import of_object
from olfl_ray.errors import SpecError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3))
Y = (RANDOM.random((40, 3)) < 0.4).astype(int)
Y[:2] = [[0, 0, 0], [1, 1, 1]]
NAMES = ["happy", "quiet still", "sad"]
FORMS: dict[str, Callable[[], Any]] = {
    "integers": lambda: Y,
    "booleans": lambda: Y.astype(bool),
    "floats": lambda: Y.astype(np.float32),
    "tensor": lambda: torch.as_tensor(Y),
    "lists": lambda: Y.tolist(),
    "pandas": lambda: pd.DataFrame(Y, columns=NAMES),
    "arrow": lambda: pa.table(dict(zip(NAMES, Y.T, strict=True))),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_zeros_and_ones_are_labels(form: str) -> None:
    found = of_object("mine", (X, FORMS[form]()))
    assert (found.kind, found.outputs) == ("multilabel", 3)
    assert found.y.dtype == torch.float32
    assert np.array_equal(found.y.numpy(), Y)
    assert found.classes == (tuple(NAMES) if form in ("pandas", "arrow") else ())
    declared = of_object(
        "mine", data.Dataset(name="own", kind="multilabel", x=X, y=FORMS[form](), classes=("a", "b", "c"))
    )
    assert (declared.kind, declared.classes) == ("multilabel", ("a", "b", "c"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_target_columns_of_a_file_are_labels(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abc")).join(pd.DataFrame(Y, columns=NAMES))
    path = tmp_path / f"songs.{form}"
    frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path)
    found = data.load(f"{form}:{path}", {"target": NAMES}, cache=tmp_path / "cache", root=None)
    assert (found.kind, found.classes, found.columns) == ("multilabel", tuple(NAMES), ("a", "b", "c"))
    assert np.array_equal(found.y.numpy(), Y)
    again = data.load(
        f"{form}:{path}", {"target": NAMES}, cache=tmp_path / "cache", root=None, wanted=found.fingerprint
    )
    assert (again.kind, again.classes) == (found.kind, found.classes)
    regression = data.load(
        f"{form}:{path}", {"target": NAMES, "kind": "regression"}, cache=tmp_path / "cache", root=None
    )
    assert (regression.kind, regression.classes) == ("regression", ())


def test_one_hot_rows_are_ambiguous(tmp_path: Path) -> None:
    y = np.eye(3, dtype=int)[RANDOM.integers(0, 3, 40)]
    with pytest.raises(SpecError, match=r'one-hot rows.*y\.argmax\(1\).*kind="multilabel"'):
        of_object("mine", (X, y))
    assert of_object("mine", data.Dataset(name="own", kind="multilabel", x=X, y=y)).outputs == 3
    path = tmp_path / "songs.csv"
    pd.DataFrame(X, columns=list("abc")).join(pd.DataFrame(y, columns=NAMES)).to_csv(path, index=False)
    with pytest.raises(SpecError, match=r"task\.dataset\.kind.*exactly one 1.*kind: multilabel"):
        data.load(f"csv:{path}", {"target": NAMES}, cache=tmp_path / "cache", root=None)


@pytest.mark.parametrize("value", [0.5, 2.0])
def test_other_numbers_are_no_labels(value: float) -> None:
    y = Y.astype(float)
    y[3, 1] = value
    assert of_object("mine", (X, y)).kind == "regression"
    with pytest.raises(SpecError, match=rf"must be 0 or 1.*row 3, label 1: {value:g}"):
        of_object("mine", data.Dataset(name="own", kind="multilabel", x=X, y=y))


@pytest.mark.parametrize("value", [0, 1])
def test_labels_that_are_the_same_everywhere_are_refused(value: int) -> None:
    with pytest.raises(SpecError, match="same labels"):
        of_object("mine", (X, np.full((40, 3), value)))


def test_columns_have_no_heads(tmp_path: Path) -> None:
    path = tmp_path / "songs.csv"
    pd.DataFrame(X, columns=list("abc")).join(pd.DataFrame(Y, columns=NAMES)).to_csv(path, index=False)
    with pytest.raises(SpecError, match="as a dict by head"):
        data.load(f"csv:{path}", {"target": NAMES, "kind": "multitask"}, cache=tmp_path / "cache", root=None)
