"""The target of a table: classes, labels, or numbers. The kind is inferred only where the values leave no doubt."""

# N examples, C outputs

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from olfl_ray.data.conversion import FEW, recognized
from olfl_ray.errors import SpecError
from olfl_ray.tasks import task_of

__all__ = ["target_of"]

TARGET, KIND = "task.dataset.target", "task.dataset.kind"


def target_of(table: pa.Table, kind: str, name: str) -> tuple[Tensor, str, tuple[str, ...]]:
    """The targets, their task, and the names of the classes, in their order.

    Args:
        table: The target's columns, without missing values.
        kind: Name of the task, or auto.
        name: The table's name, for messages.

    Returns:
        Classes (N,) int64 from 0, or numbers (N, C) float64; the task; names of the classes or labels, empty for numbers.

    Raises:
        SpecError: They don't fit the task, or the task is ambiguous.
    """
    kind = _inferred(table, name) if kind == "auto" else kind
    task = task_of(kind, KIND)
    if task.classes:
        y, classes = _classes(table, name)
    else:
        y, classes = _numbers(table, name), tuple(table.column_names) if task.labels else ()
    try:
        return task.checked(y), kind, classes
    except ValueError as error:
        raise SpecError(TARGET, f"{name}: {error}") from None


def _inferred(table: pa.Table, name: str) -> str:
    column = table.column(0)
    if table.num_columns > 1:
        y = _numbers(table, name)
        kind = recognized(y)
        if kind and bool((y.sum(1) == 1).all()):
            raise SpecError(
                KIND,
                f"{name} has exactly one 1 in each row of the targets, which may be labels or a one-hot class; give kind: {kind}, "
                "or the class in one column",
            )
        return kind or "regression"
    if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        return "classification"
    found = pc.unique(column)
    whole = pa.types.is_integer(column.type) or bool(pc.all(pc.equal(found, pc.round(found))).as_py())
    if not whole:
        return "regression"
    if pa.types.is_integer(column.type) and len(found) <= FEW:
        return "classification"
    if pa.types.is_floating(column.type) and len(found) > min(FEW, len(column) // 2):
        return "regression"
    raise SpecError(
        KIND,
        f"{name}, column {table.column_names[0]!r}, has {len(found)} different integers, which may be classes or numbers; give "
        "kind: classification or kind: regression",
    )


def _classes(table: pa.Table, name: str) -> tuple[Tensor, tuple[str, ...]]:
    title, column = table.column_names[0], table.column(0)
    if table.num_columns > 1:
        raise SpecError(TARGET, f"names {table.num_columns} columns, but classes are in one; name one column")
    if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type):
        raise SpecError(TARGET, f"{name}, column {title!r}, is of type {column.type}; give text or integers as classes")
    values = np.asarray(column.to_pylist() if not pa.types.is_integer(column.type) else column.to_numpy())
    labels, y = np.unique(values, return_inverse=True)
    if len(labels) < 2:
        raise SpecError(
            TARGET, f"{name}, column {title!r}, has only one class, {str(labels[0])!r}; two or more are needed"
        )
    if len(labels) > len(y) // 2:
        raise SpecError(
            TARGET,
            f"{name}, column {title!r}, has {len(labels)} classes for {len(y)} examples; name the column of the classes, or "
            "give kind: regression for numbers",
        )
    numbered = values.dtype.kind in "iu" and labels[0] == 0 and labels[-1] == len(labels) - 1
    return torch.from_numpy(y.astype(np.int64)), () if numbered else tuple(map(str, labels.tolist()))


def _numbers(table: pa.Table, name: str) -> Tensor:
    columns = []
    for title in table.column_names:
        column = table.column(title)
        if not (
            pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
        ):
            raise SpecError(
                TARGET,
                f"{name}, column {title!r}, is of type {column.type}, but a target of kind regression or multilabel is a number",
            )
        columns.append(column.cast(pa.float64(), safe=False).to_numpy())
    return torch.from_numpy(np.stack(columns, 1))
