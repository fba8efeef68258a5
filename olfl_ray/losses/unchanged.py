"""Whether modules still compute what their classes' code says: a fingerprint of a module as built, compared at each use."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as registry

__all__ = ["AsBuilt"]


class AsBuilt:
    """The parts of a module at the time of this call.

    A closed form equals a module's `forward` only while no part of it is hooked, replaced, inserted, removed, tied or
    parametrised.

    Args:
        module: Copied and pickled along with this.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = tuple(module.modules())
        self._children = [part._modules for part in self._parts if part._modules]
        self._parameters = [part._parameters for part in self._parts if part._parameters]
        self._hooks = [hooks for part in self._parts for hooks in _hooks(part)]
        self._built = self._now()

    def holds(self) -> bool:
        """Whether the module is as it was; takes 5 microseconds for a loss network of three layers."""
        return not any(self._hooks) and not any(_GLOBAL) and self._now() == self._built

    def _now(self) -> tuple[Any, ...]:
        return (
            [tuple(children.values()) for children in self._children],
            # An instance's own `forward` or a parametrised class differs: bound methods are equal where both halves are.
            [part.forward for part in self._parts],
            list(map(tuple, self._parameters)),
            len({id(value) for held in self._parameters for value in held.values()}),  # fewer where some are tied
        )


def _hooks(part: nn.Module) -> tuple[dict[int, Any], ...]:
    return part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks


_GLOBAL = (
    registry._global_forward_hooks,
    registry._global_forward_pre_hooks,
    registry._global_backward_hooks,
    registry._global_backward_pre_hooks,
)
