"""Tracking with MLflow."""

from olfl_ray.tracking.sink import Sink, prepare_store

__all__ = ["Sink", "prepare_store"]
