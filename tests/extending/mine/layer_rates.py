"""A learning rate per layer: each parameter's gradient is scaled by a learned factor before the optimizer's step."""

import torch
from torch import Tensor, nn

from olfl_ray.learnable import BaseOptimizer, Learnable, Params
from olfl_ray.methods import Method, Setting


class LayerRates(Learnable):
    """phi: the logarithm of a factor for each layer, that is for all parameters whose names share their prefix."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.layers = sorted({name.rpartition(".")[0] for name in names})
        self.log_factor = nn.Parameter(torch.zeros(len(self.layers)))

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The optimizer's step on the scaled gradients."""
        factors = dict(zip(self.layers, self.log_factor.exp().unbind(), strict=True))
        scaled = {name: factors[name.rpartition(".")[0]] * value for name, value in g.items()}
        return optimizer.update(theta, scaled, state, lr)


class PerLayer(Method):
    """Learned during training; its meta-gradient needs no estimator, so `meta.estimator` is not among its settings."""

    phi = "layer rates"
    during = True
    uses = ("meta.optimizer", "meta.eta_online", "meta.every", "meta.batch", "meta.clip_norm")

    def learnable(self, setting: Setting) -> Learnable:
        return LayerRates(list(setting.theta))
