"""The base learning rate instead of phi, with the task loss as base loss: an ablation of Raymond et al., arXiv 2301.13247."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.learnable import BaseOptimizer, Learnable, Params
from olfl_ray.methods.method import Method, Setting
from olfl_ray.records import names

__all__ = ["LearningRate", "OnlineLearningRate"]


class LearningRate(Learnable):
    """phi is the scalar alpha, in the place of the settings' rate; the schedule's factor stays.

    Args:
        initial: Where alpha begins, the settings' rate.
    """

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial, self.alpha = initial, nn.Parameter(torch.tensor(initial))

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The optimizer's step at the rate alpha."""
        return optimizer.update(theta, g, state, self.alpha * (lr / self.initial))

    def measured(self, lr: float) -> dict[str, float]:
        """The rate."""
        return {names.TRAIN_LR: self.alpha.item() * (lr / self.initial)}


class OnlineLearningRate(Method):
    """The base learning rate is learned before training and during it; the base loss is the task loss."""

    phi = "learning_rate"
    before = True
    during = True
    uses = (
        "meta.optimizer",
        "meta.eta_init",
        "meta.eta_online",
        "meta.init_steps",
        "meta.inner_steps",
        "meta.every",
        "meta.batch",
        "meta.clip_norm",
    )

    def learnable(self, setting: Setting) -> Learnable:
        """alpha.

        Raises:
            SpecError: It would begin at 0, of which the schedule is no fraction.
        """
        initial = setting.config.learner.optimizer.lr
        if initial == 0:
            raise SpecError("learner.optimizer.lr", "is 0, but online_lr begins to learn there; set it above 0")
        return LearningRate(initial)
