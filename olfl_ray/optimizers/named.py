"""A base optimizer that a spec may name: its settings, and how they make an optimizer of the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from olfl_ray.registry import Registry
from olfl_ray.spec import NamedPart, NonNegative, Strict

if TYPE_CHECKING:
    from olfl_ray.engine import Optimizer

__all__ = ["OPTIMIZERS", "NamedOptimizer"]


class NamedOptimizer(NamedPart, ABC):
    """A built-in base optimizer. A subclass is one file.

    Specs are read without torch, so the file imports the optimizer of the engine inside `build`.
    """

    class Config(Strict):
        """Its settings, among them the learning rate. A subclass that has more replaces this class."""

        lr: NonNegative = 0.01
        """Learning rate alpha."""

    @abstractmethod
    def build(self, clip_norm: float | None) -> Optimizer:
        """The optimizer.

        Args:
            clip_norm: Largest global norm of the gradient (`learner.clip_norm`); None: no clipping.
        """


OPTIMIZERS = Registry("olfl_ray.optimizers", NamedOptimizer)  # type: ignore[type-abstract]
"""Built-in base optimizers by name."""
