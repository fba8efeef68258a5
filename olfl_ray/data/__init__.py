"""Data sets, their splits, and batches on the trial's device."""

from olfl_ray.data.batches import TaskData
from olfl_ray.data.dataset import Dataset, Splits, split
from olfl_ray.data.load import describe, load, names

__all__ = ["Dataset", "Splits", "TaskData", "describe", "load", "names", "split"]
