"""The heads of a multi-task problem, and how their outputs and targets lie side by side in one tensor."""

# B batch, N examples, C_h outputs of a head, C outputs of all heads

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from olfl_ray.tasks.task import Task

__all__ = ["Head", "columns", "from_plain", "packed", "packed_targets", "parts", "targets_of", "to_plain"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """One of several tasks that share a base learner.

    Args:
        name: Its name, an identifier.
        kind: Name of its task: classification, regression, ...
        outputs: C_h, its number of outputs; 0 in a builder's declaration: inferred.
        classes: Names of its classes; empty: their numbers.
    """

    name: str
    kind: str
    outputs: int = 0
    classes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Its task."""
        from olfl_ray.tasks import task_of

        return task_of(self.kind)


def to_plain(heads: Sequence[Head]) -> list[dict[str, Any]]:
    """Heads as plain values, for a file."""
    return [asdict(head) for head in heads]


def from_plain(values: Sequence[Mapping[str, Any]]) -> tuple[Head, ...]:
    """The inverse of `to_plain`."""
    return tuple(Head(**{**value, "classes": tuple(value["classes"])}) for value in values)


def columns(heads: Sequence[Head]) -> Iterator[tuple[Head, slice]]:
    """Each head with its columns."""
    start = 0
    for head in heads:
        yield head, slice(start, start + head.outputs)
        start += head.outputs


def parts(heads: Sequence[Head], packed_BC: Tensor) -> dict[str, Tensor]:
    """The columns of each head (..., C_h), by its name; a head's targets may need `targets_of`."""
    return {head.name: packed_BC[..., place] for head, place in columns(heads)}


def packed(heads: Sequence[Head], found: Any) -> Tensor:
    """The outputs (B, C) of all heads, in their order.

    Args:
        heads: The heads.
        found: What a base learner returns: a dict of the heads' outputs (B, C_h), or one tensor (B, C), packed already.

    Raises:
        ValueError: The dict lacks a head, has others, or a head's outputs have another shape.
    """
    if isinstance(found, Tensor):
        return found
    names = [head.name for head in heads]
    if not isinstance(found, Mapping):
        raise ValueError(
            f"must return a dict with the outputs of {', '.join(names)}, or one tensor, not a {type(found).__name__}"
        )
    if set(found) != set(names):
        raise ValueError(f"must return outputs of {', '.join(names)}, but returned {', '.join(map(str, found))}")
    for head in heads:
        value = found[head.name]
        if not isinstance(value, Tensor) or value.dim() != 2 or value.shape[1] != head.outputs:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"must return outputs of shape (B, {head.outputs}) for {head.name}, but returned {shape}")
    return torch.cat([found[name] for name in names], 1)


def packed_targets(heads: Sequence[Head], targets: Mapping[str, Tensor]) -> Tensor:
    """Targets (N, C) of all heads: classes as one-hot numbers, so that each output has its target.

    Args:
        heads: The heads.
        targets: Of each head classes (N,) int64, or numbers (N, C_h).
    """
    blocks = [
        F.one_hot(targets[head.name], head.outputs) if head.task.classes else targets[head.name] for head in heads
    ]
    exact = any(block.dtype == torch.float64 for block in blocks)
    return torch.cat([block.to(torch.float64 if exact else torch.float32) for block in blocks], 1)


def targets_of(head: Head, block: Tensor) -> Tensor:
    """A head's targets from its columns (..., C_h): classes (...) int64, or the numbers themselves."""
    return block.argmax(-1) if head.task.classes else block
