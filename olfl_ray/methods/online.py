"""A loss network learned before training and adapted after each base step (AdaLFL: Raymond et al., arXiv 2301.13247)."""

from olfl_ray.methods.method import Method

__all__ = ["Online"]


class Online(Method):
    """Algorithms 1 and 2."""

    learns = "loss"
    before = True
    during = True
    uses = ("loss", "meta")
