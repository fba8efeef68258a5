"""A batch: inputs and targets, each one tensor or any tree of tensors (dicts, lists, tuples, named tuples)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree

__all__ = ["Batch", "examples", "first_examples", "joined", "parted", "some_examples", "tensors"]

Batch = tuple[Any, Any]
"""Inputs and targets of one batch. An object that is neither a tensor nor a known container is passed on unchanged."""


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def examples(tree: Any) -> int | None:
    """The number of examples in a tree: the first dimension shared by all its tensors; None if there is none."""
    counts = {value.shape[0] if value.dim() else None for value in tensors(tree)}
    return counts.pop() if len(counts) == 1 else None


def first_examples(batch: Batch, count: int) -> Batch:
    """The first examples of a batch; the batch itself if its tensors do not share a first dimension."""
    return some_examples(batch, 0, count)


def some_examples(batch: Batch, start: int, end: int) -> Batch:
    """The examples from `start` to `end`, with the same exception."""
    if examples(tuple(batch)) is None:
        return batch
    x, y = batch
    cut: Batch = _pytree.tree_map(lambda leaf: leaf[start:end] if isinstance(leaf, Tensor) else leaf, (x, y))
    return cut


def parted(batches: Sequence[Batch]) -> tuple[list[Tensor], Any]:
    """The tensors of some batches, and the rest of their structure."""
    if all(isinstance(value, Tensor) for batch in batches for value in batch):
        return [value for batch in batches for value in batch], len(batches)
    leaves, structure = _pytree.tree_flatten([tuple(batch) for batch in batches])
    others = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)], (structure, others)


def joined(values: Sequence[Tensor], form: Any) -> list[Batch]:
    """The inverse of `parted`."""
    if isinstance(form, int):
        return [(values[2 * index], values[2 * index + 1]) for index in range(form)]
    structure, others = form
    found = iter(values)
    leaves = [next(found) if other is None else other[0] for other in others]
    batches: list[Batch] = _pytree.tree_unflatten(leaves, structure)
    return batches
