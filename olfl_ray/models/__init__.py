"""Base learners."""

from olfl_ray.models.build import build, names

__all__ = ["build", "names"]
