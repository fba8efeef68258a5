"""The built-in data sets match the literature, and are memory-mapped until their examples are read."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor

from olfl_ray import data
from olfl_ray.data.sources import SOURCES
from olfl_ray.errors import DataError

SHAPES = {
    "california-housing": ("regression", 20640, (8,), torch.float32, 1, None),
    "cifar100-400": ("classification", 50000, (3, 32, 32), torch.uint8, 100, 10000),
    "communities-crime": ("regression", 1994, (100,), torch.float32, 1, None),
    "cifar10": ("classification", 60000, (3, 32, 32), torch.uint8, 10, 10000),
    "diabetes": ("regression", 442, (10,), torch.float32, 1, None),
    "digits": ("classification", 1797, (64,), torch.float32, 10, None),
    "emotions": ("multilabel", 593, (72,), torch.float32, 6, None),
    "fashion-mnist": ("classification", 70000, (1, 28, 28), torch.uint8, 10, 10000),
    "mnist": ("classification", 70000, (1, 28, 28), torch.uint8, 10, 10000),
    "synthetic-multilabel": ("multilabel", 1000, (20,), torch.float32, 5, None),
    "yeast": ("multilabel", 2417, (103,), torch.float32, 14, None),
}
CIFAR10_BINARY_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)
"""The publisher's five training batches and the test batch."""
CIFAR100_CHANNEL_MEANS = (0.5071, 0.4865, 0.4409)
"""Over all 50,000 training images, rounded as in the literature."""
MNIST_TRAIN_IMAGES_MD5 = "6bbc9ace898e44ae57da46a324031adb"
"""The published train-images-idx3-ubyte, unpacked."""


def needs_files(name: str) -> bool:
    return bool(SOURCES[name].files)


@pytest.fixture(params=sorted(SHAPES))
def named(request: pytest.FixtureRequest, prepared: Path) -> tuple[str, data.Dataset]:
    """A name and its data set."""
    name = request.param
    root = request.getfixturevalue("olfl_data") if needs_files(name) else None
    return name, data.load(name, {}, cache=prepared, root=root)


def counts(y: Tensor) -> list[int]:
    return torch.bincount(y).tolist()


def test_kind_shape_size_and_test_set_match_the_description(named: tuple[str, data.Dataset]) -> None:
    name, found = named
    kind, rows, shape, dtype, outputs, test = SHAPES[name]
    assert (found.name, found.kind, found.outputs) == (name, kind, outputs)
    assert (tuple(found.x.shape), found.x.dtype) == ((rows, *shape), dtype)
    if kind == "classification":
        assert (tuple(found.y.shape), found.y.dtype) == ((rows,), torch.int64)
    else:
        assert (tuple(found.y.shape), found.y.dtype) == ((rows, outputs), torch.float32)
    assert (None if found.test is None else found.test.tolist()) == (test and list(range(rows - test, rows)))
    assert (name, kind, rows, shape) in [entry[:4] for entry in data.describe(None)]


def test_second_load_is_equal_and_memory_mapped(named: tuple[str, data.Dataset], prepared: Path) -> None:
    name, first = named
    nowhere = prepared / "nowhere"  # prepared already, so the original files are not needed
    second = data.load(name, {}, cache=prepared, root=nowhere)
    assert np.array_equal(first.x.numpy(), second.x.numpy(), equal_nan=name == "communities-crime")
    assert torch.equal(first.y, second.y)
    assert (first.fingerprint, first.source) == (second.fingerprint, second.source)
    for column in (second.x, second.y):
        assert f"{name}-" in file_mapped_at(column.data_ptr())


def file_mapped_at(address: int) -> str:
    """The file that the kernel has mapped at an address of this process; empty for plain memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= address < end:
            return fields[5] if len(fields) > 5 else ""
    return ""


def test_fingerprint_depends_on_the_content(named: tuple[str, data.Dataset]) -> None:
    _, found = named
    assert found.fingerprint == hashlib.sha256(found.x.numpy().tobytes() + found.y.numpy().tobytes()).hexdigest()


def test_mnist_equals_the_published_files(prepared: Path, olfl_data: Path) -> None:
    found = data.load("mnist", {}, cache=prepared, root=olfl_data)
    header = b"".join(number.to_bytes(4, "big") for number in (0x803, 60000, 28, 28))
    assert hashlib.md5(header + found.x[:60000].numpy().tobytes()).hexdigest() == MNIST_TRAIN_IMAGES_MD5
    assert counts(found.y[:60000]) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts(found.y[60000:]) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert found.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert found.y[60000:60005].tolist() == [7, 2, 1, 0, 4]


def test_cifar10_equals_the_published_binary_files(prepared: Path, olfl_data: Path) -> None:
    """In the published binary format an image is its label, then its red, green and blue planes."""
    found = data.load("cifar10", {}, cache=prepared, root=olfl_data)
    rows = torch.cat([found.y.to(torch.uint8)[:, None], found.x.reshape(60000, 3072)], 1).numpy()
    sums = tuple(hashlib.md5(part.tobytes()).hexdigest() for part in np.split(rows, 6))
    assert sums == CIFAR10_BINARY_MD5


def test_digits_and_diabetes_are_those_of_scikit_learn(prepared: Path) -> None:
    for name, read in (("digits", load_digits), ("diabetes", partial(load_diabetes, scaled=False))):
        found, (x, y) = data.load(name, {}, cache=prepared, root=None), read(return_X_y=True)
        assert np.array_equal(found.x.numpy(), x.astype(np.float32))
        assert np.array_equal(found.y.numpy().squeeze(), y)


def test_multilabel_sets_have_the_published_cardinalities(prepared: Path, olfl_data: Path) -> None:
    """Labels per example as the literature gives them, and the rarest and the most frequent label."""
    for name, cardinality, ends in (("emotions", 1.869, (0.25, 0.445)), ("yeast", 4.237, (0.014, 0.751))):
        found = data.load(name, {}, cache=prepared, root=olfl_data)
        shares = found.y.double().mean(0)
        assert shares.sum().item() == pytest.approx(cardinality, abs=1e-3)
        assert (shares.min().item(), shares.max().item()) == pytest.approx(ends, abs=1e-3)
        assert found.y.unique().tolist() == [0.0, 1.0]
        assert bool(found.x.isfinite().all())
    names = ("amazed-suprised", "happy-pleased", "relaxing-calm", "quiet-still", "sad-lonely", "angry-aggresive")
    assert data.load("emotions", {}, cache=prepared, root=olfl_data).classes == names


def test_fashion_mnist_equals_the_published_files(prepared: Path, olfl_data: Path) -> None:
    found = data.load("fashion-mnist", {}, cache=prepared, root=olfl_data)
    assert counts(found.y[:60000]) == [6000] * 10
    assert counts(found.y[60000:]) == [1000] * 10
    assert found.y[:5].tolist() == [9, 0, 0, 3, 0]
    assert found.y[60000:60005].tolist() == [9, 2, 1, 1, 6]
    assert (found.x[:60000].double().mean() / 255).item() == pytest.approx(0.2860, abs=1e-4)


def test_cifar100_400_has_400_training_images_per_fine_class_in_a_fixed_order(prepared: Path, olfl_data: Path) -> None:
    found = data.load("cifar100-400", {}, cache=prepared, root=olfl_data)
    assert counts(found.y[:40000]) == [400] * 100
    assert counts(found.y[40000:]) == [100] * 100
    means = (found.x[:40000].double().mean((0, 2, 3)) / 255).tolist()
    assert means == pytest.approx(CIFAR100_CHANNEL_MEANS, abs=2e-3)
    keys = [bytes([label]) + image.tobytes() for label, image in zip(found.y.tolist(), found.x.numpy(), strict=True)]
    assert keys == sorted(keys[:40000]) + sorted(keys[40000:])


def test_svhn_is_read_from_its_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files in the published format: the real ones are not available here, and these have other checksums."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (32, 32, 3, 7), np.uint8), np.array([1, 10, 3, 9, 10, 2, 5])
    (tmp_path / "svhn").mkdir()
    for file, rows in (("train", slice(0, 4)), ("test", slice(4, 7))):
        path = tmp_path / "svhn" / f"{file}_32x32.mat"
        savemat(path, {"X": images[..., rows], "y": labels[rows, None].astype(np.uint8)})
        monkeypatch.setitem(SOURCES["svhn"].files, f"svhn/{path.name}", hashlib.md5(path.read_bytes()).hexdigest())
    found = data.load("svhn", {}, cache=tmp_path / "cache", root=tmp_path)
    assert found.y.tolist() == [1, 0, 3, 9, 0, 2, 5]
    assert found.test is not None
    assert found.test.tolist() == [4, 5, 6]
    assert np.array_equal(found.x[5, 2].numpy(), images[:, :, 2, 5])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_32x32.mat: has MD5 .* expected"):
        data.load("svhn", {}, cache=tmp_path / "new", root=tmp_path)


def test_communities_and_crime_drops_columns_that_most_communities_lack(prepared: Path, olfl_data: Path) -> None:
    """122 predictive columns, 22 of them missing for 1,675 of 1,994 communities; one value is missing elsewhere."""
    found = data.load("communities-crime", {}, cache=prepared, root=olfl_data)
    assert found.x.isnan().nonzero().tolist() == [[130, 25]]
    assert found.x[0, :4].tolist() == pytest.approx([0.19, 0.33, 0.02, 0.9])
    assert found.y[:3, 0].tolist() == pytest.approx([0.2, 0.67, 0.43])
    assert (found.y.min().item(), found.y.max().item()) == (0, 1)
    assert found.y.mean().item() == pytest.approx(0.238, abs=1e-3)


def test_california_housing_from_the_file_equals_scikit_learns(prepared: Path, olfl_data: Path, tmp_path: Path) -> None:
    """scikit-learn reorders the census file's columns, and derives its features from them at each load."""
    from sklearn.datasets import fetch_california_housing

    raw = np.loadtxt(olfl_data / "california-housing" / "cal_housing.data.gz", delimiter=",")
    joblib.dump(raw[:, [8, 7, 2, 3, 4, 5, 6, 1, 0]], tmp_path / "cal_housing_py3.pkz")
    x, y = fetch_california_housing(data_home=tmp_path, download_if_missing=False, return_X_y=True)
    found = data.load("california-housing", {}, cache=prepared, root=olfl_data)
    assert np.array_equal(found.x.numpy(), x.astype(np.float32))
    assert np.array_equal(found.y.numpy()[:, 0], y.astype(np.float32))


def test_bundled_sets_equal_scikit_learns(digits: data.Dataset, diabetes: data.Dataset) -> None:
    assert counts(digits.y) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (digits.x.min().item(), digits.x.max().item()) == (0, 16)
    assert (diabetes.y.min().item(), diabetes.y.max().item()) == (25, 346)
    assert diabetes.y.mean().item() == pytest.approx(152.1335, abs=1e-3)
    assert diabetes.x[:, 0].mean().item() == pytest.approx(48.5181, abs=1e-3), "ages in years, not scaled"
