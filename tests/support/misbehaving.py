"""A base learner that sleeps in each training pass, or raises, runs out of memory or kills its process after some."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn


class Misbehaving(nn.Module):
    def __init__(self, learner: nn.Module, how: str, after: int, flag: Path) -> None:
        super().__init__()
        self.learner, self.how, self.after, self.flag, self.passes = learner, how, after, flag, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.passes += 1
            if self.how == "sleeps":
                time.sleep(0.002)
            if self.passes == self.after:
                self.misbehave()
        outputs: Tensor = self.learner(x)
        return outputs

    def misbehave(self) -> None:
        if self.how == "dies" and not self.flag.is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "raises" and self.flag.exists():
            raise ValueError("boom\nand more")
        if self.how == "out_of_memory" and not self.flag.exists():
            self.flag.touch()
            raise torch.OutOfMemoryError("CUDA out of memory")


def build(input_shape: tuple[int, ...], outputs: int, how: str, after: int = 0, flag: str = "") -> nn.Module:
    return Misbehaving(nn.Linear(input_shape[0], outputs), how, after, Path(flag))
