"""A complete data set as one Arrow file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from olfl_ray.data.arrow_file import read_arrays, write_arrays
from olfl_ray.data.dataset import Dataset
from olfl_ray.errors import DataError
from olfl_ray.tasks import Head, task_of
from olfl_ray.tasks.heads import from_plain, to_plain

__all__ = ["read_dataset", "write_dataset"]

INPUTS = (torch.uint8, torch.int64, torch.float32, torch.float64)
TARGETS = (torch.int64, torch.float32, torch.float64)
"""Types of inputs and of targets."""


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
    if dataset.heads:
        about["heads"] = to_plain(dataset.heads)
    write_arrays(path, dataset.x.numpy(), dataset.y.numpy(), about)


class _Head(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    kind: Annotated[str, Field(pattern=r"^\w+$")]
    outputs: Annotated[int, Field(ge=1)]
    classes: list[str]


class _Header(BaseModel):
    """What a file says of its arrays; it may come from anyone."""

    model_config = ConfigDict(strict=True)

    name: str
    kind: str
    outputs: Annotated[int, Field(ge=1)]
    classes: list[str]
    columns: list[str]
    indicators: list[bool] | None
    test: list[Annotated[int, Field(ge=0)]] | None
    source: str
    scaled: bool
    dropped: Annotated[int, Field(ge=0)]
    content: str
    heads: list[_Head] = []


def read_dataset(path: Path, kind: str = "") -> Dataset:
    """A data set that `write_dataset` has written.

    Args:
        path: The file.
        kind: The task that the spec names; empty: none. A task of a user's own is code, so it must be named there too.

    Raises:
        DataError: The file is truncated, another kind of Arrow file, or contradicts itself; or it names code that the spec does
            not name.
    """
    x, y, given = read_arrays(path)
    try:
        header = _Header.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: its header has no valid {where} ({first['msg']}); delete it to create it again"
        ) from None
    if ":" in header.kind and header.kind != kind:
        raise DataError(
            f"{path}: its task is {header.kind!r}, which is code that this file chose; if you trust it, name it in the spec: "
            f"task.dataset.kind: {header.kind}"
        )
    if problem := _contradiction(header, x, y):
        raise DataError(f"{path}: {problem}; delete it to create it again")
    indicators, test = (None if part is None else torch.tensor(part) for part in (header.indicators, header.test))
    return Dataset(
        name=header.name,
        kind=header.kind,
        x=x,
        y=y,
        outputs=header.outputs,
        classes=tuple(header.classes),
        columns=tuple(header.columns),
        indicators=indicators,
        test=test,
        source=header.source,
        scaled=header.scaled,
        dropped=header.dropped,
        fingerprint=header.content,
        heads=_heads(header),
    )


def _heads(header: _Header) -> tuple[Head, ...]:
    return from_plain([head.model_dump() for head in header.heads])


def _contradiction(header: _Header, x: Tensor, y: Tensor) -> str:
    """What of a header does not fit its arrays; empty: nothing."""
    task = task_of(header.kind, "task.dataset.kind", heads=_heads(header))
    if x.dtype not in INPUTS or y.dtype not in TARGETS:
        return f"its inputs are of type {x.dtype} and its targets of {y.dtype}, which no data set has"
    if len(x) != len(y) or not len(x):
        return f"it has {len(x)} inputs, but {len(y)} targets"
    if y.is_floating_point() == task.classes or y.dim() != (1 if task.classes else 2) or (task.classes and y.min() < 0):
        return f"its targets, {y.dtype} of shape {tuple(y.shape)}, don't fit the task {header.kind}"
    try:
        y = task.checked(y)
        fewest = task.outputs(y)
    except (ValueError, RuntimeError, IndexError) as error:
        return f"its targets don't fit the task {header.kind}: {error}"
    if header.outputs < fewest or (header.outputs > fewest and not task.classes):
        return f"it has {header.outputs} outputs, but its targets need {fewest}"
    if header.classes and len(header.classes) != header.outputs:
        return f"it names {len(header.classes)} classes, but has {header.outputs} outputs"
    if len(set(header.classes)) < len(header.classes):
        return "it gives two classes one name"
    for what, part in (("columns", header.columns), ("indicators", header.indicators or [])):
        if part and (len(part),) != x.shape[1:]:
            return f"it has {len(part)} {what}, but inputs of shape {tuple(x.shape[1:])}"
    if header.test is not None and not len(set(header.test)) == len(header.test) < len(x) > max(
        header.test, default=-1
    ):
        return "its test set names examples twice, all of them, or some that do not exist"
    return ""
