"""A learned weight decay: the L2 penalty of each parameter has a strength that is learned during training."""

import torch
from torch import Tensor, nn

from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods import Method, Setting


class Decay(Learnable):
    """phi: the logarithm of the strength for each parameter tensor of the base learner."""

    def __init__(self, count: int, initial: float = 1e-3) -> None:
        super().__init__()
        self.log_strength = nn.Parameter(torch.full((count,), initial).log())

    def penalty(self, theta: Params) -> Tensor:
        """Added to the task loss."""
        squares = torch.stack([value.square().sum() for value in theta.values()])
        return (self.log_strength.exp() * squares).sum() / 2


class WeightDecay(Method):
    """Learned during training (Algorithm 2) only: a good strength for new weights is none for trained ones."""

    phi = "weight decay"
    during = True
    uses = (
        "meta.optimizer",
        "meta.eta_online",
        "meta.every",
        "meta.batch",
        "meta.clip_norm",
        "meta.estimator",
        "meta.memory",
    )

    def learnable(self, setting: Setting) -> Learnable:
        return Decay(len(setting.theta))
