"""Ordinary training on the task loss."""

from olfl_ray.methods.method import Method

__all__ = ["Baseline"]


class Baseline(Method):
    """Nothing is learned besides theta, which is trained on the task loss."""

    phi = "nothing"
