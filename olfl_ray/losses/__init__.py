"""Task losses and learned losses. What reads settings or files is imported when it is first used; the rest needs torch alone."""

from typing import TYPE_CHECKING

from olfl_ray.formula import Formula, read_formula
from olfl_ray.lazy import lazily
from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.elementwise import ElementwiseLoss, Slopes
from olfl_ray.losses.learned_loss import LearnedLoss
from olfl_ray.losses.network import LossNetwork
from olfl_ray.losses.standalone import standalone
from olfl_ray.losses.standardised import check_standardised
from olfl_ray.losses.task import TaskLoss, task_loss

if TYPE_CHECKING:
    from olfl_ray.losses.build import build_loss, bytes_of
    from olfl_ray.losses.chosen import LEARNED, loss_settings, named_loss
    from olfl_ray.losses.files import loss_from_bytes, read_loss
    from olfl_ray.losses.sources import Losses, LossFiles

__all__ = [
    "LEARNED",
    "ElementwiseLoss",
    "Formula",
    "LearnedLoss",
    "LossFiles",
    "LossNetwork",
    "Losses",
    "Slopes",
    "SmoothLeakyReLU",
    "TaskLoss",
    "build_loss",
    "bytes_of",
    "check_standardised",
    "loss_from_bytes",
    "loss_settings",
    "named_loss",
    "read_formula",
    "read_loss",
    "standalone",
    "task_loss",
]

__getattr__ = lazily(
    __name__,
    {
        "LEARNED": "chosen",
        "LossFiles": "sources",
        "Losses": "sources",
        "build_loss": "build",
        "bytes_of": "build",
        "loss_from_bytes": "files",
        "loss_settings": "chosen",
        "named_loss": "chosen",
        "read_loss": "files",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
