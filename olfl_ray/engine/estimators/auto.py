"""The exact meta-gradient if the learner's operators allow it, else reverse over reverse (`choose_estimator` decides)."""

from olfl_ray.engine.estimators.exact import Exact

__all__ = ["Auto"]


class Auto(Exact):
    """exact if the learner's operators allow it, else reverse."""
