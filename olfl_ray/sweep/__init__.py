"""Search and execution: Optuna proposes, the conductor decides, Ray Tune runs."""

from olfl_ray.sweep.arm import ArmSearch, scattered
from olfl_ray.sweep.conductor import Conductor

__all__ = ["ArmSearch", "Conductor", "scattered"]
