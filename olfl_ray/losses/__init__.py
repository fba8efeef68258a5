"""Task losses and learned losses."""

from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.build import build_loss
from olfl_ray.losses.files import loss_from_bytes, read_loss
from olfl_ray.losses.learned import LearnedLoss, LossNetwork
from olfl_ray.losses.sources import Losses, LossFiles
from olfl_ray.losses.standardised import check_standardised
from olfl_ray.losses.task import TaskLoss, task_loss

__all__ = [
    "LearnedLoss",
    "LossFiles",
    "LossNetwork",
    "Losses",
    "SmoothLeakyReLU",
    "TaskLoss",
    "build_loss",
    "check_standardised",
    "loss_from_bytes",
    "read_loss",
    "task_loss",
]
