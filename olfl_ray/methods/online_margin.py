"""DOSA's margin loss with margins that follow the meta-gradient of the task loss, during training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from olfl_ray.learnable import Learnable
from olfl_ray.losses.margins import MarginLoss
from olfl_ray.methods.margin_settings import MarginSettings, margin_loss_of
from olfl_ray.methods.method import OF_ADAPTATION, Method, Setting

__all__ = ["LearnedMargins", "OnlineMargin"]


class LearnedMargins(Learnable):
    """phi is rho, one number per label, from which a margin loss has its margins.

    Args:
        margins: That loss.
    """

    def __init__(self, margins: MarginLoss) -> None:
        super().__init__()
        self.margins = margins

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The margin loss."""
        found: Tensor = self.margins(outputs, targets)
        return found

    def measured(self, lr: float) -> dict[str, float]:
        """The margin of each label."""
        return self.margins.measured()


class OnlineMargin(Method):
    """Theta is trained on DOSA's margin loss; the margins are learned after each base step."""

    class Config(MarginSettings):
        """Its settings."""

    phi = "margins"
    during = True
    uses = OF_ADAPTATION

    def learnable(self, setting: Setting) -> Learnable:
        """The margins.

        Raises:
            SpecError: The task has no targets 0 and 1.
        """
        return LearnedMargins(margin_loss_of(setting, self.config))
