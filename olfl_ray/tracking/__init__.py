"""Tracking with MLflow."""

from olfl_ray.tracking.fetch import fetch_learned_loss
from olfl_ray.tracking.runs import DatasetNote, Runs
from olfl_ray.tracking.sink import Sink, undelivered
from olfl_ray.tracking.store import open_store

__all__ = ["DatasetNote", "Runs", "Sink", "fetch_learned_loss", "open_store", "undelivered"]
