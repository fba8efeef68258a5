"""A user's own data set: `module:function` with arrays or a `Dataset`; invalid results are refused in one message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

from olfl_ray import data
from olfl_ray.errors import SpecError

X, CLASSES, TARGETS = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4, np.linspace(0, 1, 40)


def own(**changes: Any) -> data.Dataset:
    settings: dict[str, Any] = {
        "name": "mine",
        "kind": "classification",
        "x": torch.as_tensor(X),
        "y": torch.as_tensor(CLASSES),
        "test": torch.tensor([1, 3]),
        "outputs": 5,
        "fingerprint": "mine-1",
        "source": "me",
    }
    return data.Dataset(**{**settings, **changes})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., data.Dataset]:
    """Load the data set of a builder that returns `made`, or raises it if it is an exception."""

    def go(made: object, **options: Any) -> data.Dataset:
        (tmp_path / "users_own.py").write_text(
            "made = None\n"
            "def build(**options):\n"
            "    if isinstance(made, Exception):\n"
            "        raise made\n"
            "    return made(**options) if callable(made) else made\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        import users_own

        monkeypatch.setattr(users_own, "made", made)
        data.forget()
        return data.load("users_own:build", options, cache=tmp_path / "cache", root=None)

    return go


@pytest.mark.parametrize(
    ("x", "y", "kind", "x_type", "y_shape", "outputs"),
    [
        (X, CLASSES, "classification", torch.float64, (40,), 4),
        (X.tolist(), CLASSES.tolist(), "classification", torch.float64, (40,), 4),
        (torch.as_tensor(X).requires_grad_(), CLASSES.astype(np.uint8), "classification", torch.float64, (40,), 4),
        (X.astype(np.int32), CLASSES > 1, "classification", torch.int64, (40,), 2),
        (X > 0, CLASSES, "classification", torch.float32, (40,), 4),
        (X.astype(np.float16), CLASSES, "classification", torch.float32, (40,), 4),
        (X, TARGETS, "regression", torch.float64, (40, 1), 1),
        (X, X[:, :2].astype(np.float16), "regression", torch.float64, (40, 2), 2),
        (np.zeros((40, 1, 8, 8), np.uint8), CLASSES, "classification", torch.uint8, (40,), 4),
        (np.zeros((40, 1, 8, 8)), CLASSES, "classification", torch.float64, (40,), 4),
        (np.zeros((40, 3), np.uint8), CLASSES, "classification", torch.float32, (40,), 4),
    ],
)
def test_arrays_become_a_data_set(
    load: Callable[..., data.Dataset],
    x: Any,
    y: Any,
    kind: str,
    x_type: torch.dtype,
    y_shape: tuple[int, ...],
    outputs: int,
) -> None:
    found = load((x, y))
    assert (found.kind, found.outputs, found.test) == (kind, outputs, None)
    assert (found.x.dtype, tuple(found.y.shape)) == (x_type, y_shape)
    values = np.asarray(x.detach() if isinstance(x, torch.Tensor) else x)
    assert np.allclose(found.x.numpy(), values, rtol=1e-3)
    assert not found.x.requires_grad
    assert load((x, y)).fingerprint == found.fingerprint
    changed = found.x.clone()
    changed[0] += 1
    assert load((changed, y)).fingerprint != found.fingerprint


def test_users_data_set_keeps_its_test_examples(load: Callable[..., data.Dataset]) -> None:
    found = load(own())
    assert found.test is not None
    assert (found.test.tolist(), found.outputs) == ([1, 3], 5)
    assert (found.x.dtype, found.y.dtype) == (torch.float64, torch.int64)


def test_fingerprint_is_computed_from_the_content_not_declared(load: Callable[..., data.Dataset]) -> None:
    first = load(own()).fingerprint
    assert load(own(name="other", source="you", fingerprint="x")).fingerprint == first
    assert len({first, load(own(x=torch.as_tensor(X) + 1)).fingerprint, load(own(test=[1])).fingerprint}) == 3


@pytest.mark.parametrize(
    ("labels", "names", "places"),
    [
        (["no", "yes"] * 20, ("no", "yes"), [0, 1]),
        (pd.Series(["no", "yes"] * 20), ("no", "yes"), [0, 1]),
        (pd.Series(["no", "yes"] * 20, dtype="category"), ("no", "yes"), [0, 1]),
        (pd.DataFrame({"label": [7, 90, 0, 7] * 10}), ("0", "7", "90"), [1, 2]),
        (np.array([1, 2, 3, 4] * 10), ("1", "2", "3", "4"), [0, 1]),
        ([-1, 1] * 20, ("-1", "1"), [0, 1]),
        ([True, False] * 20, ("False", "True"), [1, 0]),
        (pd.Series(pd.array([True, False] * 20, dtype="boolean")), ("False", "True"), [1, 0]),
        (torch.tensor([0, 1] * 20), (), [0, 1]),
        (pa.array(["no", "yes"] * 20), ("no", "yes"), [0, 1]),
    ],
)
def test_labels_become_classes_from_0_that_keep_their_names(
    load: Callable[..., data.Dataset], labels: Any, names: tuple[str, ...], places: list[int]
) -> None:
    found = load((X, labels))
    assert (found.kind, found.classes) == ("classification", names)
    assert found.outputs == (len(names) or 2)
    assert found.y[:2].tolist() == places
    if len(names) == 4:
        assert load(own(y=labels, outputs=4)).classes == names, "also in a Dataset"


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(X),
        pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2] > 0}),
        pd.DataFrame({"a": pd.array([1, 2] * 20, dtype="Int64"), "b": X[:, 1], "c": X[:, 2].astype(np.float32)}),
        pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}),
        np.ma.masked_array(X),
        X.astype(">f8"),
        np.asfortranarray(X)[::-1],
    ],
    ids=["numbered columns", "named columns", "pandas' own types", "arrow", "masked nowhere", "big endian", "reversed"],
)
def test_tables_become_arrays(load: Callable[..., data.Dataset], table: Any) -> None:
    found = load((table, CLASSES))
    wanted = table.to_pandas() if isinstance(table, pa.Table) else table
    assert found.x.dtype == torch.float64
    assert np.allclose(found.x.numpy(), np.asarray(wanted, dtype=float))


@pytest.mark.parametrize(
    "test",
    [
        [3, 1],
        (3, 1),
        np.array([3, 1]),
        pd.Index([1, 3]),
        range(1, 5, 2),
        slice(1, 4, 2),
        np.isin(np.arange(40), [1, 3]),
    ],
)
def test_test_examples_may_be_indices_a_range_or_a_mask(load: Callable[..., data.Dataset], test: Any) -> None:
    found = load(own(test=test)).test
    assert found is not None
    assert sorted(found.tolist()) == [1, 3]


def test_fields_that_can_be_inferred_may_be_omitted(load: Callable[..., data.Dataset]) -> None:
    found = load(data.Dataset(name="mine", kind="classification", x=X, y=["no", "yes"] * 20, classes=("bad", "good")))  # type: ignore[arg-type]
    assert (found.name, found.outputs, found.classes, found.test) == ("mine", 2, ("bad", "good"), None)
    assert found.fingerprint == load((X, ["no", "yes"] * 20)).fingerprint
    counts = load(data.Dataset(name="mine", kind="regression", x=X, y=CLASSES))  # type: ignore[arg-type]
    assert (counts.kind, counts.outputs, counts.y.dtype) == ("regression", 1, torch.float32)
    assert load((X, CLASSES[:, None].astype(float))).kind == "regression"


def test_options_reach_the_builder(load: Callable[..., data.Dataset]) -> None:
    def build(rows: int) -> tuple[np.ndarray, np.ndarray]:
        return X[:rows], CLASSES[:rows]

    assert len(load(build, rows=12).x) == 12
    with pytest.raises(SpecError, match=r"^task.dataset: 'users_own:build' raised TypeError: .*'lines'"):
        load(build, lines=12)


NAN, INFINITE, HUGE = (np.where(np.arange(40)[:, None] == 7, bad, X) for bad in (np.nan, np.inf, 1e300))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ((X, CLASSES[:-1]), r"x of shape \(40, 3\), y of shape \(39,\); .* must be the same"),
        ((X[:, 0], CLASSES), r"x of shape \(40,\)"),
        ((X[:, :, None], CLASSES), r"x of shape \(40, 3, 1\)"),
        ((X[:0], CLASSES[:0]), "no size 0"),
        ((X[:, :0], CLASSES), "no size 0"),
        ((X, TARGETS[:, None][:, :0]), "no size 0"),
        ((X, CLASSES[:, None]), r"integers in y of shape \(40, 1\); .*give floats for regression"),
        ((NAN, CLASSES), "NaN or infinity .* remove or fill"),
        ((INFINITE, CLASSES), "NaN or infinity .* remove or fill"),
        ((HUGE, CLASSES), r"NaN or infinity \(as float32\)"),
        ((X, np.where(TARGETS > 0.5, np.nan, TARGETS)), "NaN or infinity"),
        ((X, np.where(CLASSES > 2, np.nan, CLASSES)), "NaN or infinity .* of y, the first in row 3"),
        ((X, CLASSES.astype(float)), r"only 4 distinct .*y.astype\(int\); .*y.reshape\(-1, 1\)"),
        ((X, np.zeros(40, int) + 3), "only one label, 3"),
        ((X, np.array(["a", None] * 20, object)), "20 missing values in y"),
        ((X, np.array(["a", 1] * 20, object)), "y holds text or objects of several types"),
        ((X, np.arange(40).astype("datetime64[D]")), "dates in y"),
        ((pd.DataFrame({"a": X[:, 0], "day": pd.Timestamp("2024-01-01")}), CLASSES), "dates in x, column 'day'"),
        ((pd.DataFrame({"a": X[:, 0], "city": ["x"] * 40}), CLASSES), "x, column 'city', holds text"),
        ((pd.DataFrame({"a": X[:, 0], "b": NAN[:, 0]}), CLASSES), "1 values of x, the first in row 7, column 'b'"),
        (
            (pd.DataFrame({"a": pd.array([1, None] * 20, dtype="Int64")}), CLASSES),
            "20 values of x, the first in row 1, column 'a'",
        ),
        ((torch.as_tensor(X).to_sparse(), CLASSES), r"sparse, .* x.to_dense\(\)"),
        ((scipy.sparse.csr_matrix(X), CLASSES), r"sparse csr_matrix; give x.toarray\(\)"),
        ((np.ma.masked_less(X, 0), CLASSES), r"masked values; .* x.filled"),
        ((list(torch.as_tensor(X)), CLASSES), r"list of tensors; give torch.stack\(x\)"),
        ((np.zeros((40, 28, 28, 3), np.uint8), CLASSES), r"channels last; .* np.moveaxis\(x, -1, 1\)"),
        ((np.zeros((40, 28, 28)), CLASSES), r"for grey images give x\[:, None\]"),
        ((X, CLASSES[:, None]), r"give y.ravel\(\)"),
        ((X, np.eye(4, dtype=int)[CLASSES]), r"y.argmax\(1\)"),
        ((X.astype(str), CLASSES), "did not return arrays of numbers"),
        ((X, ["a"] * 40), "only one label, a"),
        ((X.astype(object), CLASSES), "did not return arrays of numbers"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "did not return arrays of numbers"),
        ((X + 1j, CLASSES), "complex numbers"),
        ((X, TARGETS + 1j), "complex numbers"),
        ((X, CLASSES, CLASSES), r"must return a Dataset or \(x, y\), but returned a tuple"),
        ([X, CLASSES], r"must return a Dataset or \(x, y\), but returned a list"),
        (None, r"must return a Dataset or \(x, y\), but returned a NoneType"),
        (ZeroDivisionError("no rows today"), "raised ZeroDivisionError: no rows today; correct it"),
        (own(x=torch.as_tensor(NAN)), "NaN or infinity"),
        (own(x=torch.zeros(39, 3)), r"x of shape \(39, 3\), y of shape \(40,\)"),
        (own(classes=("a", "b")), "2 names of classes, but 5"),
        (own(classes=("a", "b", "c", "d", "a")), "two classes called 'a'"),
        (own(test=torch.tensor([0.5])), "distinct indices"),
        (own(kind="regression"), "kind regression with outputs=5, but its y has 1 column"),
        (own(y=torch.as_tensor(TARGETS)), "its y has 2 columns"),
        (own(kind="regression", y=np.array(["a", "b"] * 20)), "y holds text"),
        (own(kind="regression", y=torch.as_tensor(TARGETS)), "outputs=5, but its y has 1 column"),
        (own(outputs=3), "outputs=3, but"),
        (own(test=torch.tensor([40])), "distinct indices from 0 to 39"),
        (own(test=torch.tensor([-1])), "distinct indices"),
        (own(test=torch.tensor([2, 2])), "distinct indices"),
        (own(test=torch.zeros(40, dtype=torch.bool)), "distinct indices"),
        ((X, np.eye(4)[CLASSES]), "one-hot rows"),
    ],
)
def test_invalid_data_are_one_message(load: Callable[..., data.Dataset], made: object, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(made)
    message = str(caught.value)
    assert message.startswith("task.dataset: 'users_own:build'")
    assert re.search(says, message), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("digit", "there is no data set 'digit' (did you mean 'digits'?); use one of california-housing, cifar10,"),
        ("cifar-10", "(did you mean 'cifar10'?)"),
        ("olfl_ray.data:loads", "'olfl_ray.data' has no 'loads' (did you mean 'load'?)"),
        ("olfl_ray.data:", "'olfl_ray.data' has no ''"),
        ("no_such_module:build", "can't be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        (":build", "can't be imported"),
        (".data:build", "can't be imported"),
        ("olfl_ray.data:__all__", "is a list, not a function"),
    ],
)
def test_unknown_name_suggests_the_nearest(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        data.load(name, {}, cache=tmp_path, root=None)
    assert str(caught.value).startswith("task.dataset: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "source", ["raise RuntimeError('broken')", "import sys; sys.exit('used as a script')", "def build(:"]
)
def test_module_that_fails_at_import_is_one_message(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match=r"task\.dataset: 'users_broken:build' can't be imported"):
        data.load("users_broken:build", {}, cache=tmp_path, root=None)


def test_options_of_a_built_in_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"task\.dataset\.classes: digits has no options; remove it"):
        data.load("digits", {"classes": 3}, cache=tmp_path, root=None)


def test_builder_that_draws_without_a_seed_is_refused(load: Callable[..., data.Dataset], tmp_path: Path) -> None:
    def shuffled(seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows = np.random.default_rng(seed).permutation(len(X))
        return X[rows], CLASSES[rows]

    load(shuffled, seed=1)
    data.check_repeatable("users_own:build", {"seed": 1})
    data.check_repeatable("digits", {})
    load(shuffled)
    with pytest.raises(SpecError, match="seed") as caught:
        data.check_repeatable("users_own:build", {})
    assert caught.value.field == "task.dataset"
