"""A base learner that raises after some training passes while a file exists: a trial that fails, and can be retried."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["build"]

PASSES = 30
"""Number of training passes before it raises."""


class Failing(nn.Module):
    """A linear model.

    Args:
        features: Number of inputs.
        outputs: Number of classes.
        flag: The file.
    """

    def __init__(self, features: int, outputs: int, flag: Path) -> None:
        super().__init__()
        self.linear, self.flag, self.passes = nn.Linear(features, outputs), flag, 0

    def forward(self, x: Tensor) -> Tensor:
        """Outputs."""
        if self.training and torch.is_grad_enabled():
            self.passes += 1
            if self.passes == PASSES and self.flag.exists():
                raise ValueError(f"{self.flag} is there")
        outputs: Tensor = self.linear(x)
        return outputs


def build(input_shape: tuple[int, ...], outputs: int, flag: str) -> nn.Module:
    """The model.

    Args:
        input_shape: Shape of one example.
        outputs: Number of classes.
        flag: The file that makes it fail.
    """
    return Failing(input_shape[0], outputs, Path(flag))
