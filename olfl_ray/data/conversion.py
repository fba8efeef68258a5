"""A builder's result as the tensors that training needs: inputs, and class labels with their names, or targets.

The types decide the meaning. Inputs: uint8 are pixels, floats are features, other integers are ids (of tokens, for example),
which are looked up and never scaled. Targets: several columns of zeros and ones are several labels per example; else floats are
regression targets, everything else is class labels.
"""

# N examples, C outputs

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.tasks import TASKS, Task

__all__ = ["as_indices", "as_inputs", "as_targets", "recognized"]

FEW = 20
"""Floats that are all integers, with at most this many distinct values, are more likely labels than targets."""
NAMES_SHOWN = 3
LAST_CHANNELS = (1, 3, 4)
"""Sizes of a last axis that are taken for the channels of square images, not for their width."""


def as_inputs(name: str, given: Any) -> Tensor:
    """x as uint8, float32, float64 (where float32 would round) or int64.

    Args:
        name: The builder's name, for messages.
        given: What it returned: a tensor, an array, nested lists, or a pandas, Arrow or Polars table.

    Raises:
        SpecError: It has no numbers, or some are missing or infinite.
    """
    x = _tensor(name, "x", _as_array(name, "x", given))
    ids = not x.is_floating_point() and x.dtype not in (torch.bool, torch.uint8)
    if (x.dim() not in (2, 4) and not (ids and x.dim() == 3)) or 0 in x.shape:
        raise _error(
            name,
            f"returned x of shape {tuple(x.shape)}; x must be features (N, D), ids (N, L) or (N, K, L), or images (N, channels, "
            "height, width), no size 0" + ("; for grey images give x[:, None]" if x.dim() == 3 else ""),
        )
    if x.dim() == 4 and x.shape[1] == x.shape[2] > LAST_CHANNELS[-1] and x.shape[3] in LAST_CHANNELS:
        raise _error(
            name,
            f"returned x of shape {tuple(x.shape)}, images with their channels last; channels come first here, so give "
            "np.moveaxis(x, -1, 1)",
        )
    if x.dtype == torch.uint8 and x.dim() == 4:
        return x
    if not x.is_floating_point():
        return x.to(torch.int64) if ids else x.to(torch.float32)
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    _check_finite(name, "x", x, given)
    return x


def as_targets(name: str, given: Any, task: Task | None = None, outputs: int = 0) -> tuple[Tensor, tuple[str, ...]]:
    """y as classes (N,) int64 from 0, with their names unless the labels are these numbers, or as float targets (N, C).

    Args:
        name: The builder's name.
        given: As for `as_inputs`; labels may be text, booleans or any integers.
        task: Task of the data set, if the builder declares it.
        outputs: Number of classes, if the builder declares it, whether or not all occur; 0: as many as occur.

    Raises:
        SpecError: Labels or targets are missing, or it is ambiguous which of the two they are.
    """
    plain, numbers = _as_array(name, "y", given), task is not None and not task.classes
    if isinstance(plain, np.ndarray) and plain.dtype.kind in "US" and plain.ndim == 1 and not numbers:
        return _classes(name, *np.unique(plain, return_inverse=True))
    y = _tensor(name, "y", plain)
    if y.dim() not in (1, 2) or 0 in y.shape:
        raise _error(
            name, f"returned y of shape {tuple(y.shape)}; y must be classes (N,) or targets (N,) or (N, C), no size 0"
        )
    if y.is_floating_point():
        _check_finite(name, "y", y, given)
    if y.is_floating_point() and y.dim() == 1 and not numbers:
        y = _as_integers(name, y, labels=task is not None)
    kind = recognized(y) if task is None else ""
    if kind and bool((y.sum(1) == 1).all()):
        raise _error(
            name,
            "returned one-hot rows in y, which may be classes or labels: for one class per example give y.argmax(1), for "
            f'labels that only happen to be exclusive Dataset(kind="{kind}", ...)',
        )
    if y.is_floating_point() or numbers or kind:
        y = (y if y.dtype == torch.float64 else y.to(torch.float32)).reshape(len(y), -1)
        return y, _titles(given) if kind or (task is not None and task.labels) else ()
    if y.dim() != 1:
        cure = "give y.ravel()" if y.shape[1] == 1 else "from one-hot rows take y.argmax(1)"
        raise _error(
            name,
            f"returned integers in y of shape {tuple(y.shape)}; integers are classes, a vector (N,): {cure}, or give floats for "
            "regression",
        )
    if y.dtype == torch.bool:
        return _classes(name, np.array([False, True]), y.numpy())
    labels, places = np.unique(y.numpy(), return_inverse=True)
    known = outputs or len(labels)
    if int(labels[0]) >= 0 and int(labels[-1]) < known:
        return y.to(torch.int64), ()
    return _classes(name, labels, places)


def recognized(y: Tensor) -> str:
    """Name of the built-in task that targets without a declared task clearly belong to; empty: none."""
    if y.dim() != 2:
        return ""
    return next((kind for kind in TASKS.names() if TASKS.find(kind, "")().recognizes(y)), "")


def _titles(given: Any) -> tuple[str, ...]:
    """Names of a table's columns (pandas, Arrow, Polars); empty: it has none, or their numbers."""
    titles = tuple(map(str, getattr(given, "column_names", getattr(given, "columns", ()))))
    return () if titles == tuple(map(str, range(len(titles)))) else titles


def _as_integers(name: str, y: Tensor, *, labels: bool) -> Tensor:
    """Convert floats to integers if they are integers and labels are wanted.

    Raises:
        SpecError: They have few distinct integer values and nothing tells whether they are labels or targets: a missing label
            turns a column of integers into floats.
    """
    found = y.unique()
    if not bool((found == found.round()).all()) or found.abs().max() > 2**53:
        return y
    if labels:
        return y.to(torch.int64)
    if len(found) > min(FEW, len(y) // 2):
        return y
    shown = ", ".join(f"{value:g}" for value in found[:NAMES_SHOWN].tolist())
    more = ", ..." if len(found) > NAMES_SHOWN else ""
    raise _error(
        name,
        f"returned floats in y, but only {len(found)} distinct integers ({shown}{more}): for classes give integers, "
        "y.astype(int); for a regression give y of shape (N, 1), y.reshape(-1, 1)",
    )


def as_indices(name: str, given: Any, rows: int) -> Tensor:
    """Indices (M,) int64 of a test set.

    Args:
        name: The builder's name.
        given: Indices as a tensor, an array, a list or a range; a slice; or a mask of `rows` booleans.
        rows: N, the number of examples.

    Raises:
        SpecError: They are not distinct indices, or there are none.
    """
    if isinstance(given, slice):
        given = range(*given.indices(rows))
    found = _tensor(name, "test", _as_array(name, "test", np.asarray(given) if isinstance(given, range) else given))
    if found.dtype == torch.bool and tuple(found.shape) == (rows,):
        found = found.nonzero().flatten()
    valid = found.dim() == 1 and not found.is_floating_point() and found.dtype != torch.bool and len(found) > 0
    if not valid or int(found.min()) < 0 or int(found.max()) >= rows or len(found.unique()) < len(found):
        raise _error(
            name,
            f"returned test of shape {tuple(found.shape)} and type {found.dtype}; it must be distinct indices from 0 to "
            f"{rows - 1}, or a mask of {rows} booleans, and not empty",
        )
    return found.to(torch.int64)


def _error(name: str, problem: str) -> SpecError:
    return SpecError("task.dataset", f"{name!r} {problem}")


def _as_array(name: str, part: str, given: Any) -> Any:
    """Convert any table or array-like to a tensor or an array."""
    if isinstance(given, Tensor):
        if given.layout != torch.strided or given.is_nested or given.is_quantized:
            raise _error(name, f"returned {part} as a sparse, nested or quantized tensor; give {part}.to_dense()")
        return given
    if hasattr(given, "toarray"):  # scipy's sparse matrices and arrays
        raise _error(name, f"returned {part} as a sparse {type(given).__name__}; give {part}.toarray()")
    if hasattr(given, "to_pandas"):  # Arrow, Polars
        given = given.to_pandas()
    if isinstance(given, np.ma.MaskedArray):
        if np.ma.is_masked(given):
            count = int(np.ma.getmaskarray(given).sum())
            raise _error(
                name, f"returned {part} with {count} masked values; drop these rows, or give {part}.filled(...)"
            )
        return given.data
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        columns = [_column(name, part, given.iloc[:, place], title) for place, title in enumerate(given.columns)]
        if part == "y" and len(columns) == 1:
            return columns[0]
        return np.stack([np.asarray(column) for column in columns], 1) if columns else np.empty((len(given), 0))
    if hasattr(given, "iloc"):
        return _column(name, part, given, given.name)
    if isinstance(given, list | tuple):
        if given and isinstance(given[0], Tensor) and given[0].dim():
            raise _error(name, f"returned {part} as a list of tensors; give torch.stack({part})")
        try:
            given = np.asarray(given)
        except ValueError as error:
            raise _error(
                name, f"did not return arrays of numbers: {error}; give rows of one length in {part}"
            ) from None
    return _column(name, part, given, None) if isinstance(given, np.ndarray) and given.dtype.kind in "OMm" else given


def _column(name: str, part: str, column: Any, title: Any) -> Any:
    """A column as an array of numbers or booleans, or of text for labels."""
    where = part if title is None else f"{part}, column {title!r},"
    dtype = str(getattr(column, "dtype", ""))
    if dtype.startswith(("datetime", "timedelta", "period")):
        raise _error(name, f"returned dates in {where}; give numbers, such as days since the first")
    values = np.asarray(column)
    if values.dtype.kind in "US":
        return values  # used as labels, or refused as inputs later
    if values.dtype.kind != "O":
        return values
    cells = values.ravel().tolist()
    gone = sum(cell is None or cell != cell or str(cell) == "<NA>" for cell in cells)
    if gone:
        raise _error(name, f"returned {gone} missing values in {where} (NaN or None); drop or fill these rows")
    if all(isinstance(cell, str) for cell in cells) and part == "y":
        return values.astype(str)
    if dtype != "object" and all(isinstance(cell, int | float | np.number | np.bool_) for cell in cells):
        return np.array(cells)  # a pandas extension column of integers or booleans
    raise _error(
        name,
        f"did not return arrays of numbers: {where} holds text or objects of several types; encode it, or give .astype(float), "
        "(int) or (str)",
    )


def _tensor(name: str, part: str, plain: Any) -> Tensor:
    if isinstance(plain, np.ndarray) and plain.dtype.kind in "US":
        raise _error(name, f"did not return arrays of numbers: {part} holds text; encode it as numbers")
    try:
        if isinstance(plain, np.ndarray):
            plain = np.ascontiguousarray(plain)
            plain = plain if plain.flags.writeable else plain.copy()
            plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
        found = torch.as_tensor(plain).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise _error(name, f"did not return arrays of numbers: {error}; correct {part}") from None
    if found.is_complex():
        raise _error(name, f"returned complex numbers in {part}; give real ones")
    return found


def _check_finite(name: str, part: str, found: Tensor, given: Any) -> None:
    """Check for NaN and infinity as float32, the precision of training."""
    bad = ~torch.isfinite(found.to(torch.float32))
    if bool(bad.any()):
        row, *rest = bad.nonzero()[0].tolist()
        titles = getattr(given, "columns", None)
        column = f", column {titles[rest[0]]!r}" if titles is not None and len(rest) == 1 else ""
        column = f", column {rest[0]}" if not column and len(rest) == 1 else column
        raise _error(
            name,
            f"returned NaN or infinity (as float32) in {int(bad.sum())} values of {part}, the first in row {row}{column}; "
            "remove or fill those rows",
        )


def _classes(name: str, labels: Any, places: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Classes from 0 in the order of their labels, with their names; labels that do not occur are left out."""
    there, places = np.unique(places, return_inverse=True)
    if len(there) < 2:
        raise _error(name, f"returned only one label, {labels[int(there[0])]!s}; a classification has two or more")
    names = tuple(str(labels[int(place)]) for place in there)
    return torch.as_tensor(places.astype(np.int64)), names
