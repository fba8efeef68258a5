"""Base learners."""

from olfl_ray.models.build import build, bytes_of, names

__all__ = ["build", "bytes_of", "names"]
