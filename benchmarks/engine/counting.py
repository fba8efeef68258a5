"""A base learner that counts its training passes in a file, in any process, which reveals repeated work."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

__all__ = ["build"]


class Counting(nn.Module):
    """Adds one byte to a file at each forward pass in train mode with gradients; appends of one byte never mix.

    Args:
        learner: The wrapped learner.
        file: The file; created if absent.
    """

    def __init__(self, learner: nn.Module, file: str) -> None:
        super().__init__()
        self.learner, self.file = learner, file

    def forward(self, x: Tensor) -> Tensor:
        """The learner's outputs."""
        if self.training and torch.is_grad_enabled():
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(descriptor, b".")
            finally:
                os.close(descriptor)
        outputs: Tensor = self.learner(x)
        return outputs


def build(input_shape: tuple[int, ...], outputs: int, hidden: int, file: str) -> nn.Module:
    """A perceptron with one hidden layer.

    Args:
        input_shape: Shape of one example.
        outputs: Number of classes.
        hidden: Number of hidden units.
        file: File of the count.
    """
    return Counting(nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, outputs)), file)
