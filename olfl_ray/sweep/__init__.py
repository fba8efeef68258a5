"""Execution: the conductor decides, Ray Tune runs."""

import logging

from olfl_ray.sweep.conductor import Conductor

__all__ = ["Conductor"]

logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # in a notebook, of widgets that nothing here shows
