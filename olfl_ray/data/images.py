"""The image data sets: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100, SVHN."""

# N images

from __future__ import annotations

import gzip
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from olfl_ray.data.finding import Arrays, Files, Source, downloading, find
from olfl_ray.errors import DataError
from olfl_ray.vision import torchvision

__all__ = ["IMAGES"]

MNIST = {
    "mnist/train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "mnist/train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "mnist/t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "mnist/t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FASHION_MNIST = {
    "fashion-mnist/train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "fashion-mnist/train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "fashion-mnist/t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
CIFAR10 = {
    "cifar-10/train.parquet": "8da726fd2a7db5afdeef59486c9ade626a3c268263580221481a5ad64b0d2839",
    "cifar-10/test.parquet": "9516b116136052ade4f49d01f3d984f6621c29cb77154efa074c7daa608a0025",
}
CIFAR100_PARTS = {
    "cifar-100/train-0-of-5.parquet": "fee0a3a64d85105b3375209e0a57d06ecf2b9afba326011a60d87bb404815350",
    "cifar-100/train-1-of-5.parquet": "d567f1c3dec3545a20d18bc11b9e1512bb5d798e1cbefacebafce79f41919868",
    "cifar-100/train-2-of-5.parquet": "8f5e6f644c1a94f7e7fd645af72262fa6373f28c174b4f31f7a3994b346dfbf7",
    "cifar-100/train-3-of-5.parquet": "8160beb66ae35020bbb43ee994401510446133e0f3fb8490cfe4eed12f453b76",
}
CIFAR100_TEST = {"cifar-100/test.parquet": "f9c4d3fc809aef46c0bdac1247c291f40e5dbd4dfe370d8011dc1e0dacec9c31"}
CIFAR100_400 = {**CIFAR100_PARTS, **CIFAR100_TEST}
CIFAR100 = {
    **CIFAR100_PARTS,
    "cifar-100/train-4-of-5.parquet": "9e102dadc054e8118cacc3ba704075da9b4ec8e13dc5b74881663fc9c5389cef",
    **CIFAR100_TEST,
}
SVHN = {
    "svhn/train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "svhn/test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
DOWNLOAD = "torchvision download"

Part = tuple[np.ndarray, np.ndarray]
"""Images (N, channels, height, width) and labels (N,)."""


def _grey(name: str, kind: str, files: Files, root: Path | None, scratch: Path) -> Arrays:
    """MNIST-like data in the idx format."""
    found = find(root, files)
    if found is None:
        return _arrays(*_downloaded(name, kind, files, root, scratch), DOWNLOAD)
    train_x, train_y, test_x, test_y = (_idx(content) for content in found)
    return _arrays((train_x[:, None], train_y), (test_x[:, None], test_y), str(root))


def _idx(content: bytes) -> np.ndarray:
    raw = gzip.decompress(content)
    sizes = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _cifar10(root: Path | None, scratch: Path) -> Arrays:
    found = find(root, CIFAR10)
    if found is None:
        return _arrays(*_downloaded("cifar10", "CIFAR10", CIFAR10, root, scratch), DOWNLOAD)
    train, test = (_cifar_part(content, "label") for content in found)
    return _arrays(train, test, str(root))


def _cifar100(root: Path | None, scratch: Path) -> Arrays:
    """The fine labels, in an order given by the images: the files and the download have different orders."""
    found = find(root, CIFAR100)
    if found is not None:
        return _cifar100_of(found, root)
    train, test = _downloaded("cifar100", "CIFAR100", CIFAR100, root, scratch)
    return _arrays(_ordered(train), _ordered(test), DOWNLOAD)


def _cifar100_400(root: Path | None, scratch: Path) -> Arrays:
    """400 of the 500 training images of each class: those in the first four of the five files."""
    found = find(root, CIFAR100_400)
    if found is None:
        raise DataError(
            f"task.dataset: cifar100-400 is not here: set OLFL_DATA to a folder with {', '.join(CIFAR100_400)}; or use "
            "the full cifar100, which can be downloaded"
        )
    return _cifar100_of(found, root)


def _cifar100_of(contents: list[bytes], root: Path | None) -> Arrays:
    *train, test = (_cifar_part(content, "fine_label") for content in contents)
    x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return _arrays(_ordered((x, y)), _ordered(test), str(root))


def _ordered(part: Part) -> Part:
    """Sort by class, then by the images' bytes."""
    x, y = part
    keys = np.concatenate([y.astype(np.uint8)[:, None], x.reshape(len(x), -1)], 1)
    order = np.argsort(keys.view(f"V{keys.shape[1]}").ravel(), kind="stable")
    return x[order], y[order]


def _cifar_part(content: bytes, labels: str) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(pa.BufferReader(content))
    images = []
    for cell in table.column("images").to_pylist():
        data = cell["bytes"] if isinstance(cell, dict) else cell
        images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 32, 32, 3))
    y = np.concatenate([np.asarray(some) for some in table.column(labels).to_pylist()])
    return np.concatenate(images).transpose(0, 3, 1, 2), y


def _svhn(root: Path | None, scratch: Path) -> Arrays:
    """Cropped digits, format 2, without the extra images."""
    found = find(root, SVHN)
    if found is None:
        return _arrays(*_downloaded("svhn", "SVHN", SVHN, root, scratch), DOWNLOAD)
    train, test = (_mat(content) for content in found)
    return _arrays(train, test, str(root))


def _mat(content: bytes) -> Part:
    """X is (32, 32, 3, N), y (N, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    table = loadmat(io.BytesIO(content))
    return table["X"].transpose(3, 2, 0, 1), table["y"].ravel() % 10


def _downloaded(name: str, reader: str, files: Files, root: Path | None, scratch: Path) -> tuple[Part, Part]:
    """The train and test sets as read by torchvision's class `reader`."""
    with downloading(name, root, files):
        torchvision()
        from torchvision import datasets

        load = getattr(datasets, reader)
        if reader == "SVHN":
            return _read(load(str(scratch), "train", download=True)), _read(load(str(scratch), "test", download=True))
        return _read(load(str(scratch), True, download=True)), _read(load(str(scratch), False, download=True))


def _read(found: Any) -> Part:
    """The arrays of a torchvision data set: SVHN's images are already in NCHW, MNIST's have no channels."""
    x, y = np.asarray(found.data), np.asarray(found.labels if hasattr(found, "labels") else found.targets)
    if x.ndim == 3:
        return x[:, None], y
    return (x.transpose(0, 3, 1, 2) if x.shape[-1] == 3 else x), y


def _arrays(train: Part, test: Part, source: str) -> Arrays:
    x, y = (np.concatenate(parts) for parts in zip(train, test, strict=True))
    return Arrays(x=np.ascontiguousarray(x), y=y.astype(np.int64), train_rows=len(train[1]), source=source)


_mnist = partial(_grey, "mnist", "MNIST", MNIST)
_fashion_mnist = partial(_grey, "fashion-mnist", "FashionMNIST", FASHION_MNIST)

IMAGES: dict[str, Source] = {
    "cifar10": Source(kind="classification", rows=60000, shape=(3, 32, 32), read=_cifar10, files=CIFAR10),
    "cifar100": Source(kind="classification", rows=60000, shape=(3, 32, 32), read=_cifar100, files=CIFAR100),
    "cifar100-400": Source(
        kind="classification", rows=50000, shape=(3, 32, 32), read=_cifar100_400, files=CIFAR100_400, downloads=False
    ),
    "fashion-mnist": Source(
        kind="classification", rows=70000, shape=(1, 28, 28), read=_fashion_mnist, files=FASHION_MNIST
    ),
    "mnist": Source(kind="classification", rows=70000, shape=(1, 28, 28), read=_mnist, files=MNIST),
    "svhn": Source(kind="classification", rows=99289, shape=(3, 32, 32), read=_svhn, files=SVHN),
}
