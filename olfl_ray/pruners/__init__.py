"""Pruners by name: when a trial may be ended early, and by which rule. Each is a file."""

from olfl_ray.pruners.pruner import PRUNERS, Pruner, pruner_of

__all__ = ["PRUNERS", "Pruner", "pruner_of"]
