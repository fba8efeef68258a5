"""The Ray worker: restores, runs and commits one trial after another."""

from olfl_ray.worker.assignment import Assignment
from olfl_ray.worker.messages import Message
from olfl_ray.worker.session import Session

__all__ = ["Assignment", "Message", "Session"]
