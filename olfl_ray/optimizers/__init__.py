"""Base optimizers by name. Each is a file; importing it does not import torch."""

from olfl_ray.optimizers.named import OPTIMIZERS, NamedOptimizer

__all__ = ["OPTIMIZERS", "NamedOptimizer"]
