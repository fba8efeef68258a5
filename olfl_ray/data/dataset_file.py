"""A complete data set as one Arrow file."""

from __future__ import annotations

from pathlib import Path

import torch

from olfl_ray.data.arrow_file import read_arrays, write_arrays
from olfl_ray.data.dataset import Dataset
from olfl_ray.errors import DataError

__all__ = ["read_dataset", "write_dataset"]


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write a data set, with all that training and reports use of it."""
    indicators, test = (None if part is None else part.tolist() for part in (dataset.indicators, dataset.test))
    about = {
        "name": dataset.name,
        "kind": dataset.kind,
        "outputs": dataset.outputs,
        "classes": dataset.classes,
        "columns": dataset.columns,
        "indicators": indicators,
        "test": test,
        "source": dataset.source,
        "scaled": dataset.scaled,
        "dropped": dataset.dropped,
        "content": dataset.fingerprint,
    }
    write_arrays(path, dataset.x.numpy(), dataset.y.numpy(), about)


def read_dataset(path: Path) -> Dataset:
    """A data set that `write_dataset` has written.

    Raises:
        DataError: The file is truncated, or another kind of Arrow file.
    """
    x, y, header = read_arrays(path)
    try:
        indicators, test = (
            None if header[key] is None else torch.tensor(header[key]) for key in ("indicators", "test")
        )
        return Dataset(
            name=header["name"],
            kind=header["kind"],
            x=x,
            y=y,
            outputs=header["outputs"],
            classes=tuple(header["classes"]),
            columns=tuple(header["columns"]),
            indicators=indicators,
            test=test,
            source=header["source"],
            scaled=header["scaled"],
            dropped=header["dropped"],
            fingerprint=header["content"],
        )
    except KeyError as error:
        raise DataError(f"{path}: its header lacks {error}; delete it to create it again") from None
