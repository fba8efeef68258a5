"""Schedules of the base learning rate by name. Each is a file."""

from olfl_ray.schedules.schedule import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Schedule"]
