"""Data sets, their splits, and batches on the trial's device."""

from olfl_ray.data.batches import TaskData
from olfl_ray.data.dataset import Dataset, Splits, for_task, split
from olfl_ray.data.load import absolute, check_repeatable, describe, episode, forget, is_builder, load, names
from olfl_ray.data.objects import store
from olfl_ray.data.prepared import CACHE, node_cache, share
from olfl_ray.data.scaler import InputScaler

__all__ = [
    "CACHE",
    "Dataset",
    "InputScaler",
    "Splits",
    "TaskData",
    "absolute",
    "check_repeatable",
    "describe",
    "episode",
    "for_task",
    "forget",
    "is_builder",
    "load",
    "names",
    "node_cache",
    "share",
    "split",
    "store",
]
