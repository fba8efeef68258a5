"""A user's base learner that waits at each evaluation but its first few while a file exists: a slow trial."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor, nn

FREE = 4


class Gated(nn.Module):
    def __init__(self, learner: nn.Module, gate: Path) -> None:
        super().__init__()
        self.learner, self.gate, self.evaluations = learner, gate, 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.evaluations += 1
            while self.evaluations > FREE and self.gate.exists():
                time.sleep(0.05)
        outputs: Tensor = self.learner(x)
        return outputs


def build(input_shape: tuple[int, ...], outputs: int, gate: str) -> nn.Module:
    return Gated(nn.Linear(input_shape[0], outputs), Path(gate))
