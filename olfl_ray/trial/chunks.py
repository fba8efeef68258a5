"""The number of examples evaluated at once: as many as fit in the memory of a training step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from olfl_ray.engine import Problem

__all__ = ["examples_at_once"]

MOST = 2048
"""Maximum number of examples per chunk."""
ALWAYS_FINE = 256 * 2**20
"""Bytes that evaluation may always use, however little training needs."""
COPIES = 2
"""A convolution copies its input and its output to another layout for its kernel."""


def examples_at_once(problem: Problem, x: Tensor, batch_size: int) -> int:
    """Number of examples per chunk: what fits into 256 MB, but at least a batch and at most 2,048.

    A batch fits wherever it was trained on: evaluation keeps no activations for a backward pass. The number depends only on
    the module, not on the machine, since products of other sizes may round differently.

    Args:
        problem: Base learner and its parts.
        x: Inputs of some examples.
        batch_size: Number of examples in a train batch.
    """
    theta, buffers = problem.theta(), problem.buffers()
    kept = [*theta.values(), *buffers.values(), *problem.module.parameters()]
    widest = _Widest({value.untyped_storage().data_ptr() for value in kept})
    try:
        with widest:
            problem.predict(theta, buffers, x)
    except Exception:  # for example a compiled or scripted module, which can't be traced here
        return min(batch_size, MOST)
    each = COPIES * widest.bytes / len(x)
    return int(min(MOST, max(batch_size, ALWAYS_FINE // max(each, 1))))


class _Widest(TorchDispatchMode):
    """Bytes of the operator with the largest inputs and outputs together, without weights."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes, self._weights = 0, weights

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise torch would import its compiler, which takes a second and is never used here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        stored = (value.untyped_storage() for value in (*_tensors(args), *_tensors([found])))
        sizes = {place.data_ptr(): place.nbytes() for place in stored}
        self.bytes = max(self.bytes, sum(size for place, size in sizes.items() if place not in self._weights))
        return found


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
