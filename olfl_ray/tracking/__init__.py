"""Tracking with MLflow."""

from olfl_ray.tracking.fetch import fetch_learned_loss, storage_in_runs
from olfl_ray.tracking.held import parent_status, undelivered
from olfl_ray.tracking.runs import DatasetNote, Runs
from olfl_ray.tracking.sink import Sink
from olfl_ray.tracking.sqlite_file import absolute_uri, file_of, sqlite_uri
from olfl_ray.tracking.store import FROM_ENVIRONMENT, check_store, make_store, open_store

__all__ = [
    "FROM_ENVIRONMENT",
    "DatasetNote",
    "Runs",
    "Sink",
    "absolute_uri",
    "check_store",
    "fetch_learned_loss",
    "file_of",
    "make_store",
    "open_store",
    "parent_status",
    "sqlite_uri",
    "storage_in_runs",
    "undelivered",
]
