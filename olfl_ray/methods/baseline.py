"""Ordinary training on the task loss, or on a fixed loss instead."""

from olfl_ray.methods.method import Method

__all__ = ["Baseline"]


class Baseline(Method):
    """Nothing is meta-learned."""

    phi = "nothing"
    uses = ("learner.fixed_loss",)
