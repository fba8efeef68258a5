"""A base learner that kills its own process once: what `olfl doctor --chaos` trains."""

from __future__ import annotations

import itertools
import math
import os
import signal

from torch import Tensor, nn

from olfl_ray.storage import open_storage

__all__ = ["ARMED", "KILLED", "build"]

ARMED, KILLED = "armed", "killed"
"""Objects of the marks: the process may die; one did."""
EVERY = 20
"""Forward passes of a process between two checks of the marks."""
_passes = itertools.count()


def build(input_shape: tuple[int, ...], outputs: int, marks: str) -> nn.Module:
    """A perceptron; one process that trains it dies, once `ARMED` exists.

    Args:
        input_shape: Shape of one example.
        outputs: Outputs per example.
        marks: Storage of the marks.
    """
    layers = (nn.Flatten(), nn.Linear(math.prod(input_shape), 16), nn.Tanh(), nn.Linear(16, outputs))
    return _Mortal(nn.Sequential(*layers), marks)


class _Mortal(nn.Module):
    def __init__(self, inner: nn.Module, marks: str) -> None:
        super().__init__()
        self.inner, self.marks = inner, marks

    def forward(self, x: Tensor) -> Tensor:
        if next(_passes) % EVERY == EVERY - 1:
            marks = open_storage(self.marks)
            if marks.exists(ARMED) and not marks.exists(KILLED) and marks.create(KILLED, b""):
                os.kill(os.getpid(), signal.SIGKILL)
        outputs: Tensor = self.inner(x)
        return outputs
