"""A method: the loss network of `online`, learned during training from its initial weights, without Algorithm 1."""

from olfl_ray.learnable import Learnable
from olfl_ray.methods import Method, Setting, loss_network


class FromScratch(Method):
    phi = "loss"
    during = True
    uses = (
        "loss",
        "meta.optimizer",
        "meta.eta_online",
        "meta.every",
        "meta.batch",
        "meta.clip_norm",
        "meta.estimator",
        "meta.memory",
    )

    def learnable(self, setting: Setting) -> Learnable:
        return loss_network(setting)
