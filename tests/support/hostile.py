"""A stranger's builder: a learned loss that works, and writes a file that shows that it ran."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    def __init__(self, mark: str) -> None:
        super().__init__()
        Path(mark).touch()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.w * (target - output) ** 2


def build(mark: str) -> nn.Module:
    return Loss(mark)
