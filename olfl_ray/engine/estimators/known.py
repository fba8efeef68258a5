"""What has been probed already: the estimator of a module and its losses, until one of them changes."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.compared import HOOKS, Compared
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import Estimator

__all__ = ["Known"]

MOST = 8
"""Losses, settings or forms of a batch that are remembered for a module at once."""


class Known:
    """The estimator that a problem got, found again while nothing that decided it has changed.

    It is found by the same learned loss, task loss, optimizer, settings and form of the batches; the modules must have the same
    parts, modes, hooks, and parameters of the same shapes. Modules are held weakly.
    """

    def __init__(self) -> None:
        self._found: weakref.WeakKeyDictionary[nn.Module, list[_Entry]] = weakref.WeakKeyDictionary()

    def estimator(
        self, problem: Problem, settings: tuple[Any, ...], batches: list[Batch], choose: Callable[[], Estimator]
    ) -> Estimator:
        """The estimator of a problem.

        Args:
            problem: Base learner, losses, optimizer.
            settings: The optimizer and all else that decides it; compared by value.
            batches: Train batches, then the meta batch.
            choose: Probes the problem; called where it is not known.

        Raises:
            SpecError: As `choose` raises it; nothing is remembered then.
        """
        now = _Entry(problem, (*settings, *map(_form, batches)))
        entries = self._found.setdefault(problem.module, [])
        for entry in entries:
            if entry.is_of(now) and entry.again is not None:
                return entry.again(problem)
        estimator = choose()
        now.again = estimator.again if isinstance(estimator, Compared) else lambda _: estimator
        entries[:] = [*entries, now][-MOST:]
        return estimator


class _Entry:
    """What decides a problem's estimator, without a strong reference to a module or a loss."""

    def __init__(self, problem: Problem, settings: tuple[Any, ...]) -> None:
        self.again: Callable[[Problem], Estimator] | None = None
        self._values = (settings, _state(problem.module), _state(problem.learned))
        parts = [*problem.module.modules(), *problem.learned.modules(), problem.task_loss, problem.select]
        self._parts = [_weakly(part) for part in parts]

    def is_of(self, other: _Entry) -> bool:
        """Whether both describe the same."""
        return (
            self._values == other._values
            and len(self._parts) == len(other._parts)
            and all(_same(one(), two()) for one, two in zip(self._parts, other._parts, strict=True))
        )


def _state(module: nn.Module) -> list[Any]:
    found: list[Any] = []
    for name, part in module.named_modules(remove_duplicate=False):
        own = vars(part)
        found.append(
            (name, type(part), own["training"], *(len(own[kind]) for kind in HOOKS), *map(_tensor, _held(own)))
        )
    return found


def _held(own: dict[str, Any]) -> list[tuple[str, Tensor | None]]:
    return [*own["_parameters"].items(), *own["_buffers"].items()]


def _tensor(named: tuple[str, Tensor | None]) -> tuple[Any, ...]:
    name, value = named
    if value is None:
        return (name,)
    hooked = bool(value._backward_hooks), bool(getattr(value, "_post_accumulate_grad_hooks", None))
    return name, value.shape, value.dtype, value.device, value.requires_grad, *hooked


def _form(batch: Batch) -> tuple[Any, ...]:
    """Structure, shapes and types; values that are no tensors, by their type."""
    leaves, structure = _pytree.tree_flatten(tuple(batch))
    each = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]
    return structure, each


def _weakly(part: Any) -> Callable[[], Any]:
    if part is None:
        return lambda: _NOTHING
    try:
        return weakref.WeakMethod(part) if isinstance(part, types.MethodType) else weakref.ref(part)
    except TypeError:  # of what can't be held weakly nothing is known
        return lambda: None


_NOTHING = object()


def _same(one: Any, other: Any) -> bool:
    return one is not None and (one is other or (isinstance(one, types.MethodType) and one == other))
