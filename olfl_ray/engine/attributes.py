"""What a forward pass may change in a module besides its tensors: attributes are saved and restored."""

from __future__ import annotations

import collections
import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["attributes_kept"]


@contextlib.contextmanager
def attributes_kept(*modules: object) -> Iterator[None]:
    """Undo what passes inside change in attributes: names, tensors, arrays, containers, and generators.

    Args:
        modules: `nn.Module` objects, with their submodules; other objects are ignored.
    """
    seen: set[int] = set()
    back = [
        _restoring(vars(part), seen)
        for module in modules
        if isinstance(module, nn.Module)
        for part in module.modules()
        if id(part) not in seen
    ]
    try:
        yield
    finally:
        for restore in back:
            if restore is not None:
                restore()


def _restoring(value: Any, seen: set[int]) -> Callable[[], object] | None:
    """A function that restores the current content of `value`; None if nothing in it can change in place."""
    if isinstance(value, str | bytes | int | float | complex | type | nn.Module | nn.Parameter | None):
        return None
    if id(value) in seen:
        return None
    seen.add(id(value))
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, dict):
        return _container(value, list(value.items()), value.values(), seen, value.update)
    if isinstance(value, list | collections.deque):
        return _container(value, list(value), value, seen, value.extend)
    if isinstance(value, set):
        return _container(value, list(value), (), seen, value.update)
    if isinstance(value, tuple):
        return _together([_restoring(item, seen) for item in value])
    if isinstance(value, random.Random):
        return _call(value.setstate, value.getstate())
    if isinstance(value, torch.Generator):
        return _call(value.set_state, value.get_state())
    return _of_numpy(value)


def _tensor(value: Tensor) -> Callable[[], object]:
    before, version = value.detach().clone(), value._version

    def restore() -> None:
        if value._version != version:
            with torch.no_grad():
                value.detach().copy_(before)

    return restore


def _container(
    value: Any, content: list[Any], inner: Any, seen: set[int], fill: Callable[[Any], object]
) -> Callable[[], object]:
    parts, before = _together([_restoring(item, seen) for item in inner]), _held(value)

    def restore() -> None:
        now = _held(value)
        if len(now) != len(before) or any(one is not other for one, other in zip(now, before, strict=True)):
            value.clear()
            fill(content)
        if parts is not None:
            parts()

    return restore


def _held(value: Any) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else list(value)


def _of_numpy(value: Any) -> Callable[[], object] | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray):
        before = value.copy()
        return lambda: numpy.copyto(value, before)
    if isinstance(value, numpy.random.RandomState):
        return _call(value.set_state, value.get_state())
    if isinstance(value, numpy.random.Generator):
        return _call(lambda state: setattr(value.bit_generator, "state", state), value.bit_generator.state)
    return None


def _call(put: Callable[[Any], object], state: Any) -> Callable[[], object]:
    return lambda: put(state)


def _together(restores: list[Callable[[], object] | None]) -> Callable[[], object] | None:
    found = [restore for restore in restores if restore is not None]
    return (lambda: [restore() for restore in found]) if found else None
