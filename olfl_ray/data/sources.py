"""Where each data set comes from: bundled, found under OLFL_DATA, or downloaded; checked, and turned into arrays."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olfl_ray.errors import DataError
from olfl_ray.vision import torchvision

__all__ = ["SOURCES", "Arrays", "Source"]

SILENCE_SECONDS = 10.0
"""A download's server that says nothing for so long is given up."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A data set as arrays: `x` (N, ...), `y` (N,) integers or (N, C) floats, number of training rows, where from."""

    x: np.ndarray
    y: np.ndarray
    train_rows: int | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A built-in data set: its kind, rows, shape, how it is read, and its files under OLFL_DATA with their SHA-256."""

    kind: str
    rows: int
    shape: tuple[int, ...]
    read: Callable[[Path | None, Path], Arrays]
    files: dict[str, str]


MNIST = {
    "mnist/train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "mnist/train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "mnist/t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "mnist/t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CIFAR10 = {
    "cifar-10/train.parquet": "8da726fd2a7db5afdeef59486c9ade626a3c268263580221481a5ad64b0d2839",
    "cifar-10/test.parquet": "9516b116136052ade4f49d01f3d984f6621c29cb77154efa074c7daa608a0025",
}
HOUSING = {
    "california-housing/cal_housing.data.gz": "9ec0c7920a28267aa6fd23b11fab174e134d9dff83e17c1d19674a7650834755",
}


def _found(root: Path | None, files: dict[str, str]) -> list[bytes] | None:
    """The files under OLFL_DATA, checked; None where none of them is there.

    Raises:
        DataError: One is missing, truncated or altered.
    """
    if root is None or not any((root / name).exists() for name in files):
        return None
    contents = []
    for name, wanted in files.items():
        path = root / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; put the file there, or unset OLFL_DATA to download the data set"
            ) from None
        digest = hashlib.sha256(content).hexdigest()
        if digest != wanted:
            raise DataError(
                f"{path}: has SHA-256 {digest[:16]}… ({len(content)} bytes), expected {wanted[:16]}…; "
                "it is truncated or altered: copy it again, or unset OLFL_DATA to download the data set"
            )
        contents.append(content)
    return contents


@contextlib.contextmanager
def _downloading(name: str, root: Path | None, files: dict[str, str]) -> Iterator[None]:
    """Whatever goes wrong in a download, a silent server too, is a message that says both ways to the data set.

    Raises:
        DataError: The download failed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        here = "is not here" if root is None else f"is not in OLFL_DATA={root}"
        raise DataError(
            f"task.dataset: {name} {here}: set OLFL_DATA to a folder with {', '.join(files)}; or run "
            f"`olfl data prepare {name}` where there is internet (the download failed: {reason})"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _digits(root: Path | None, scratch: Path) -> Arrays:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Arrays(x=x.astype(np.float32), y=y.astype(np.int64), train_rows=None, source="scikit-learn, bundled")


def _diabetes(root: Path | None, scratch: Path) -> Arrays:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    y = y.astype(np.float32)[:, None]
    return Arrays(x=x.astype(np.float32), y=y, train_rows=None, source="scikit-learn, bundled")


def _idx(content: bytes) -> np.ndarray:
    raw = gzip.decompress(content)
    sizes = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _mnist(root: Path | None, scratch: Path) -> Arrays:
    found = _found(root, MNIST)
    if found is not None:
        parts = [_idx(content) for content in found]
        source = str(root)
    else:
        parts, source = _download("mnist", "MNIST", root, MNIST, scratch), "torchvision download"
    x = np.concatenate([parts[0], parts[2]])[:, None]
    y = np.concatenate([parts[1], parts[3]]).astype(np.int64)
    return Arrays(x=x, y=y, train_rows=len(parts[1]), source=source)


def _download(name: str, kind: str, root: Path | None, files: dict[str, str], scratch: Path) -> list[np.ndarray]:
    """Train images, train labels, test images, test labels by torchvision."""
    parts = []
    with _downloading(name, root, files):
        torchvision()
        from torchvision import datasets

        for train in (True, False):
            dataset = getattr(datasets, kind)(str(scratch), train=train, download=True)
            parts += [np.asarray(dataset.data), np.asarray(dataset.targets)]
    return parts


def _cifar_part(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(pa.BufferReader(content))
    images = []
    for cell in table.column("images").to_pylist():
        data = cell["bytes"] if isinstance(cell, dict) else cell
        images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 32, 32, 3))
    labels = np.concatenate([np.asarray(labels) for labels in table.column("label").to_pylist()])
    return np.concatenate(images), labels


def _cifar10(root: Path | None, scratch: Path) -> Arrays:
    found = _found(root, CIFAR10)
    if found is not None:
        parts: list[Any] = [*_cifar_part(found[0]), *_cifar_part(found[1])]
        source = str(root)
    else:
        parts, source = _download("cifar10", "CIFAR10", root, CIFAR10, scratch), "torchvision download"
    x = np.ascontiguousarray(np.concatenate([parts[0], parts[2]]).transpose(0, 3, 1, 2))
    return Arrays(x=x, y=np.concatenate([parts[1], parts[3]]).astype(np.int64), train_rows=len(parts[1]), source=source)


def _housing(root: Path | None, scratch: Path) -> Arrays:
    """Median house value, in units of 100,000 dollars, from the eight features that scikit-learn makes of the census file.

    They are median income, age of the houses, rooms and bedrooms a household, population, people a household, latitude
    and longitude: the same numbers from the file as from scikit-learn's download.
    """
    found = _found(root, HOUSING)
    if found is not None:
        rows = np.loadtxt(io.BytesIO(gzip.decompress(found[0])), delimiter=",", dtype=np.float64)
        longitude, latitude, age, rooms, bedrooms, people, households, income, value = rows.T
        x = np.stack(
            [income, age, rooms / households, bedrooms / households, people, people / households, latitude, longitude],
            1,
        )
        y, source = value / 100_000, str(root)
    else:
        with _downloading("california-housing", root, HOUSING):
            from sklearn.datasets import fetch_california_housing

            x, y = fetch_california_housing(data_home=str(scratch), return_X_y=True)
        source = "scikit-learn download"
    return Arrays(x=x.astype(np.float32), y=y.astype(np.float32)[:, None], train_rows=None, source=source)


SOURCES: dict[str, Source] = {
    "california-housing": Source(kind="regression", rows=20640, shape=(8,), read=_housing, files=HOUSING),
    "cifar10": Source(kind="classification", rows=60000, shape=(3, 32, 32), read=_cifar10, files=CIFAR10),
    "diabetes": Source(kind="regression", rows=442, shape=(10,), read=_diabetes, files={}),
    "digits": Source(kind="classification", rows=1797, shape=(64,), read=_digits, files={}),
    "mnist": Source(kind="classification", rows=70000, shape=(1, 28, 28), read=_mnist, files=MNIST),
}
