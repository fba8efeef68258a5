"""A table of named columns as a data set: features, categories, target. Nothing here is fitted on the examples' values.

Scales, means of missing values and the categories that count are those of each replicate's train split (`TaskData`).
"""

# N examples, D features, C outputs

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BeforeValidator, Field

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.targets import target_of
from olfl_ray.errors import SpecError
from olfl_ray.memory import free_memory, refuse_too_large
from olfl_ray.plugins import nearest
from olfl_ray.spec import PART, Strict, as_tuple
from olfl_ray.tasks import task_of

__all__ = ["TableConfig", "dataset_of"]

FIELD = "task.dataset"
MOST_CATEGORIES = 1000
"""Categories of one column; each is a feature."""
NAMES_SHOWN = 12


def _as_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]


class TableConfig(Strict):
    """The roles of a table's columns. A column that is not named here is a feature, and must contain numbers or booleans."""

    target: Annotated[tuple[str, ...], BeforeValidator(_as_names), Field(min_length=1)]
    """Column to predict; a list: several, for labels (0 or 1) or a regression."""
    kind: Annotated[str, Field(pattern=PART)] = "auto"
    """Task: classification, multilabel, regression, or `package.module:Class`; auto: text, booleans and at most 20 different
    integers are classes, several columns of 0 and 1 are labels, fractions are a regression, and anything else is refused."""
    drop: Names = ()
    """Columns that are not used."""
    categorical: Names = ()
    """Columns of categories, of any type: each category becomes a feature that is 1 or 0. For a category that the train split
    lacks, all features of the column are 0."""
    missing: Literal["refuse", "drop", "mean"] = "refuse"
    """Missing values: refuse the file | drop the example | use the column's mean over the train split (for a category: no
    indicator is 1). An example without a target is refused or dropped."""
    ids: bool = False
    """Whether all features are integer ids (of tokens, say), which the base learner looks up and which are never scaled."""


def dataset_of(table: pa.Table, config: TableConfig, name: str) -> Dataset:
    """A table as a data set.

    Args:
        table: The table.
        config: Which columns are what.
        name: Its name, for messages.

    Raises:
        SpecError: A column does not exist, or its values don't fit.
    """
    _check_columns(table.column_names, config, name)
    table = _plain(table.drop_columns(list(config.drop)), name)
    if not table.num_rows:
        raise SpecError(FIELD, f"{name} has a header but no rows; name a file with examples")
    rows = table.num_rows
    table = _complete(table, config, name)
    y, kind, classes = target_of(table.select(list(config.target)), config.kind, name)
    features = table.drop_columns(list(config.target))
    if config.ids:
        x, titles, indicators = *_ids(features, name), None
    else:
        x, titles, indicators = _numbers(features, config.categorical, name)
    return Dataset(
        name=name,
        kind=kind,
        x=x,
        y=y,
        outputs=task_of(kind).outputs(y),
        classes=classes,
        columns=titles,
        indicators=indicators,
        dropped=rows - table.num_rows,
    )


def _check_columns(there: Sequence[str], config: TableConfig, name: str) -> None:
    repeated = [column for column, count in Counter(there).items() if count > 1]
    if repeated:
        raise SpecError(FIELD, f"{name} has {there.count(repeated[0])} columns called {repeated[0]!r}; rename them")
    used: dict[str, str] = {}
    for role in ("target", "drop", "categorical"):
        for column in getattr(config, role):
            if column not in there:
                shown = ", ".join(there[:NAMES_SHOWN]) + (", ..." if len(there) > NAMES_SHOWN else "")
                raise SpecError(
                    f"{FIELD}.{role}",
                    f"{name} has no column {column!r}{nearest(column, list(there))}; its columns are {shown}",
                )
            if column in used:
                raise SpecError(
                    f"{FIELD}.{role}", f"names the column {column!r}, which is named already in {used[column]}"
                )
            used[column] = role
    if config.ids and config.categorical:
        raise SpecError(
            f"{FIELD}.categorical", "ids: true takes integer columns as they are; drop one of the two fields"
        )
    if len(used) - len(config.categorical) == len(there):
        raise SpecError(FIELD, f"{name} has no column left besides target and drop; keep at least one feature")


def _plain(table: pa.Table, name: str) -> pa.Table:
    """The same values in fewer types: NaN is a missing value, decimals are floats, dictionaries what they stand for."""
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        elif pa.types.is_decimal(field.type) or pa.types.is_float16(field.type):
            column = column.cast(pa.float64())
        if pa.types.is_floating(column.type):
            infinite = int(pc.sum(pc.is_inf(column)).as_py() or 0)
            if infinite:
                raise SpecError(FIELD, f"{name}, column {field.name!r}, has {infinite} infinite values; correct them")
            column = pc.if_else(pc.is_nan(column), None, column)
        table = table.set_column(place, field.name, column)
    return table


def _complete(table: pa.Table, config: TableConfig, name: str) -> pa.Table:
    """The table after the rule for missing values."""
    gaps = {title: table.column(title).null_count for title in table.column_names if table.column(title).null_count}
    if config.missing == "drop" and gaps:
        kept = table.drop_null()
        if not kept.num_rows:
            worst = max(gaps, key=lambda title: gaps[title])
            raise SpecError(
                f"{FIELD}.missing",
                f"each row of {name} lacks a value, and {gaps[worst]} of {table.num_rows} that of the column {worst!r}; drop "
                "such columns (task.dataset.drop)",
            )
        return kept
    refused = config.target if config.missing == "mean" else table.column_names
    for title in refused:
        if title in gaps:
            row = pc.index(pc.is_null(table.column(title)), True).as_py() + 1
            cure = "remove these rows, or give missing: drop"
            if title not in config.target:
                cure = "give missing: mean or missing: drop, or drop the column"
            raise SpecError(
                f"{FIELD}.missing",
                f"{name}, column {title!r}, lacks {gaps[title]} of {table.num_rows} values, the first in row {row}; {cure}",
            )
    return table


def _numbers(
    table: pa.Table, categorical: Sequence[str], name: str
) -> tuple[torch.Tensor, tuple[str, ...], torch.Tensor | None]:
    """Features (N, D) as float64, NaN where one is missing; their names; and which are indicators of categories."""
    widths = {title: len(pc.unique(table.column(title))) if title in categorical else 1 for title in table.column_names}
    widest = max(widths, key=lambda title: widths[title])
    refuse_too_large(
        2 * np.dtype(float).itemsize * table.num_rows * min(sum(widths.values()), MOST_CATEGORIES * len(widths)),
        f"{name} with {table.num_rows:,} rows and {sum(widths.values()):,} features, {widths[widest]:,} of {widest!r},",
        f"{FIELD}.categorical" if categorical else FIELD,
        free_memory(),
    )
    blocks: list[np.ndarray] = []
    titles: list[str] = []
    indicators: list[bool] = []
    for title in table.column_names:
        column = table.column(title)
        if title in categorical:
            block, categories = _one_hot(column, title, name)
            titles += [f"{title}={category}" for category in categories]
        else:
            block = _floats(column, title, name)
            titles.append(title)
        indicators += [title in categorical] * block.shape[1]
        blocks.append(block)
    x = torch.from_numpy(np.concatenate(blocks, 1))
    return x, tuple(titles), torch.tensor(indicators) if any(indicators) else None


def _floats(column: pa.ChunkedArray, title: str, name: str) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        raise SpecError(FIELD, f"{name}, column {title!r}, has no values; add it to task.dataset.drop")
    if pa.types.is_temporal(kind):
        raise SpecError(
            FIELD, f"{name}, column {title!r}, holds dates or times; add it to task.dataset.drop, or give numbers in it"
        )
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        what = "text" if _is_text(kind) else f"values of type {kind}"
        raise SpecError(
            FIELD,
            f"{name}, column {title!r}, holds {what}{_example(column)}; correct it, or add the column to "
            "task.dataset.categorical or task.dataset.drop",
        )
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)[:, None]


def _one_hot(column: pa.ChunkedArray, title: str, name: str) -> tuple[np.ndarray, list[str]]:
    """Indicators (N, categories) of a column's categories in their order; all 0 where it is missing."""
    codes = column.combine_chunks().dictionary_encode()
    count = len(codes.dictionary)
    if not 1 <= count <= MOST_CATEGORIES:
        raise SpecError(
            f"{FIELD}.categorical",
            f"{name}, column {title!r}, has {count} categories, but must have 1 to {MOST_CATEGORIES}; drop it "
            "(task.dataset.drop), or encode it yourself",
        )
    order = np.asarray(pc.array_sort_indices(codes.dictionary))
    places = np.empty(count + 1, np.int64)
    places[order], places[count] = np.arange(count), count  # missing: a column of its own, which is left out
    rows = places[np.asarray(codes.indices.fill_null(count))]
    block = np.zeros((len(rows), count + 1))
    block[np.arange(len(rows)), rows] = 1.0
    return block[:, :count], [str(codes.dictionary[int(place)].as_py()) for place in order]


def _ids(table: pa.Table, name: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Ids (N, D) int64; a column of lists of one length gives several."""
    blocks: list[np.ndarray] = []
    titles: list[str] = []
    for title in table.column_names:
        column = table.column(title)
        width = 1
        if (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            widths = pc.unique(pc.list_value_length(column)).to_pylist()
            if len(widths) != 1 or not widths[0]:
                raise SpecError(
                    FIELD,
                    f"{name}, column {title!r}, has lists of different lengths or empty ones; pad them to one length",
                )
            width, column = widths[0], pc.list_flatten(column)
        if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            raise SpecError(
                f"{FIELD}.ids",
                f"{name}, column {title!r}, is of type {column.type}{' with missing values' if column.null_count else ''}, but "
                "ids are integers from -2^63 to 2^63 - 1; drop the column, correct its values, or leave out ids",
            )
        try:
            values = column.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            raise SpecError(
                f"{FIELD}.ids", f"{name}, column {title!r}, has ids above 2^63 - 1; renumber them"
            ) from None
        blocks.append(values.reshape(-1, width))
        titles += [title] if width == 1 else [f"{title}.{place}" for place in range(width)]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks, 1))), tuple(titles)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _example(column: pa.ChunkedArray) -> str:
    """The first cell that is not a number, and its row (from 1, not counting the header)."""
    for row, cell in enumerate(column.to_pylist(), start=1):
        try:
            float(cell)
        except (TypeError, ValueError):
            if cell is not None:
                return f" ({str(cell)[:30]!r} in row {row})"
    return ""
