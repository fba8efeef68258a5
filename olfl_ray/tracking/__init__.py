"""Tracking with MLflow."""

from olfl_ray.tracking.fetch import fetch_learned_loss
from olfl_ray.tracking.sink import Sink, prepare_store

__all__ = ["Sink", "fetch_learned_loss", "prepare_store"]
