"""Execution: the conductor decides, Ray Tune runs."""

from olfl_ray.sweep.conductor import Conductor

__all__ = ["Conductor"]
