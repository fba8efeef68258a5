"""A loss network learned before training and adapted after each base step (AdaLFL: Raymond et al., arXiv 2301.13247)."""

from olfl_ray.learnable import Learnable
from olfl_ray.methods.loss_network import loss_network
from olfl_ray.methods.method import Method, Setting

__all__ = ["Online"]


class Online(Method):
    """A loss network is learned before training, then adapted after each base step (AdaLFL)."""

    phi = "loss"
    before = True
    during = True
    uses = ("loss", "meta")

    def learnable(self, setting: Setting) -> Learnable:
        """The learned loss."""
        return loss_network(setting)
