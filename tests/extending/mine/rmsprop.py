"""A base optimizer (RMSprop), and a schedule that begins with a small learning rate."""

import torch
from torch import Tensor

from olfl_ray.engine import Optimizer
from olfl_ray.learnable import Params


class RmsProp(Optimizer):
    """The gradient over the root of a running mean of its squares (Hinton 2012)."""

    def __init__(self, *, decay: float = 0.9, eps: float = 1e-6) -> None:
        self.decay, self.eps = decay, eps

    def init(self, params: Params) -> dict[str, Tensor]:
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        moved, after = dict(params), dict(state)  # a parameter without a gradient stays as it is
        for name, g in grads.items():
            after[name] = self.decay * state[name] + (1 - self.decay) * g * g
            moved[name] = params[name] - lr * g / (after[name] + self.eps).sqrt()
        return moved, after


def warmup(done: float, until: float = 0.1) -> float:
    """A factor that grows linearly up to 1, reached at this fraction of the steps."""
    return min(1.0, (done + 0.01) / until)
