"""The Ray worker: restores, runs and commits one trial after another."""

from olfl_ray.worker.assignment import Assignment
from olfl_ray.worker.messages import Message
from olfl_ray.worker.session import Session
from olfl_ray.worker.source import KeptLosses, find_loss, find_sequence, finished_chain, loss_at, losses_until

__all__ = [
    "Assignment",
    "KeptLosses",
    "Message",
    "Session",
    "find_loss",
    "find_sequence",
    "finished_chain",
    "loss_at",
    "losses_until",
]
