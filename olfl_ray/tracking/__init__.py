"""Tracking with MLflow."""

from olfl_ray.tracking.fetch import fetch_learned_loss, storage_in_runs
from olfl_ray.tracking.runs import DatasetNote, Runs
from olfl_ray.tracking.sink import Sink, undelivered
from olfl_ray.tracking.store import FROM_ENVIRONMENT, check_store, open_store

__all__ = [
    "FROM_ENVIRONMENT",
    "DatasetNote",
    "Runs",
    "Sink",
    "check_store",
    "fetch_learned_loss",
    "open_store",
    "storage_in_runs",
    "undelivered",
]
