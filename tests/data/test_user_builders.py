"""A user's own data set: `module:function` with arrays or a `Dataset`; what does not fit is refused in one message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
    """Load what a builder that gives `made` gives; an exception is raised by it."""

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
        (X, CLASSES, "classification", torch.float32, (40,), 4),
        (X.tolist(), CLASSES.tolist(), "classification", torch.float32, (40,), 4),
        (torch.as_tensor(X).requires_grad_(), CLASSES.astype(np.uint8), "classification", torch.float32, (40,), 4),
        (X.astype(np.int32), CLASSES > 1, "classification", torch.float32, (40,), 2),
        (X, TARGETS, "regression", torch.float32, (40, 1), 1),
        (X, X[:, :2].astype(np.float16), "regression", torch.float32, (40, 2), 2),
        (np.zeros((40, 1, 8, 8), np.uint8), CLASSES, "classification", torch.uint8, (40,), 4),
        (np.zeros((40, 1, 8, 8)), CLASSES, "classification", torch.float32, (40,), 4),
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
    assert np.allclose(found.x.numpy(), values)
    assert not found.x.requires_grad
    assert load((x, y)).fingerprint == found.fingerprint
    changed = found.x.clone()
    changed[0] += 1
    assert load((changed, y)).fingerprint != found.fingerprint


def test_data_set_of_ones_own_keeps_its_test_rows(load: Callable[..., data.Dataset]) -> None:
    found = load(own())
    assert found.test is not None
    assert (found.test.tolist(), found.outputs, found.fingerprint) == ([1, 3], 5, "mine-1")
    assert (found.x.dtype, found.y.dtype) == (torch.float32, torch.int64)


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
        ((X, CLASSES[:-1]), r"x of shape \(40, 3\), y of shape \(39,\); .* N the same"),
        ((X[:, 0], CLASSES), r"x of shape \(40,\)"),
        ((X[:, :, None], CLASSES), r"x of shape \(40, 3, 1\)"),
        ((X[:0], CLASSES[:0]), "no size 0"),
        ((X[:, :0], CLASSES), "no size 0"),
        ((X, TARGETS[:, None][:, :0]), "no size 0"),
        ((X, CLASSES[:, None]), r"integers in y are classes, a vector .* \(40, 1\) .*give floats for regression"),
        ((X, CLASSES - 1), "from 0, but .* least -1"),
        ((NAN, CLASSES), "NaN or infinity .* remove or fill"),
        ((INFINITE, CLASSES), "NaN or infinity .* remove or fill"),
        ((HUGE, CLASSES), r"NaN or infinity \(as float32\)"),
        ((X, np.where(TARGETS > 0.5, np.nan, TARGETS)), "NaN or infinity"),
        ((X.astype(str), CLASSES), "gave no arrays of numbers"),
        ((X, ["a"] * 40), "gave no arrays of numbers"),
        ((X.astype(object), CLASSES), "gave no arrays of numbers"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "gave no arrays of numbers"),
        ((X + 1j, CLASSES), "complex numbers"),
        ((X, TARGETS + 1j), "complex numbers"),
        ((X, CLASSES, CLASSES), r"must give a Dataset or \(x, y\), but gave a tuple"),
        ([X, CLASSES], r"must give a Dataset or \(x, y\), but gave a list"),
        (None, r"must give a Dataset or \(x, y\), but gave a NoneType"),
        (ZeroDivisionError("no rows today"), "raised ZeroDivisionError: no rows today; correct it"),
        (own(x=torch.as_tensor(NAN)), "NaN or infinity"),
        (own(x=torch.zeros(39, 3)), r"x of shape \(39, 3\), y of shape \(40,\)"),
        (own(kind="regression"), "kind regression with outputs=5, but its y is of kind classification with 4"),
        (own(y=torch.as_tensor(TARGETS)), "its y is of kind regression with 1"),
        (own(kind="regression", y=torch.as_tensor(TARGETS)), "outputs=5, but its y is of kind regression with 1"),
        (own(outputs=3), "outputs=3, but"),
        (own(test=torch.tensor([40])), "distinct row numbers from 0 to 39"),
        (own(test=torch.tensor([-1])), "distinct row numbers"),
        (own(test=torch.tensor([2, 2])), "distinct row numbers"),
        (own(test=torch.zeros(40, dtype=torch.bool)), "distinct row numbers"),
    ],
)
def test_what_does_not_fit_is_one_message(load: Callable[..., data.Dataset], made: object, says: str) -> None:
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
def test_module_that_breaks_when_imported_is_one_message(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match=r"task\.dataset: 'users_broken:build' can't be imported"):
        data.load("users_broken:build", {}, cache=tmp_path, root=None)


def test_options_of_a_built_in_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"task\.dataset\.classes: digits has no options; remove it"):
        data.load("digits", {"classes": 3}, cache=tmp_path, root=None)
