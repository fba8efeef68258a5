"""A loss network learned before training, then frozen (ML3: Bechtle et al. 2021)."""

from olfl_ray.learnable import Learnable
from olfl_ray.methods.loss_network import loss_network
from olfl_ray.methods.method import Method, Setting

__all__ = ["Offline"]


class Offline(Method):
    """A loss network is learned before training, then frozen (ML3)."""

    phi = "loss"
    before = True
    uses = (
        "loss",
        "meta.optimizer",
        "meta.eta_init",
        "meta.init_steps",
        "meta.inner_steps",
        "meta.batch",
        "meta.clip_norm",
        "meta.estimator",
        "meta.memory",
    )

    def learnable(self, setting: Setting) -> Learnable:
        """The learned loss."""
        return loss_network(setting)
