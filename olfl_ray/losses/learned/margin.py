"""DOSA's margin loss with one margin for all labels, as a learned loss (arXiv 2402.04596)."""

# P pairs

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.losses.margins import HIGHEST, Importance, margin_loss
from olfl_ray.spec import Strict

__all__ = ["Margin"]

LEAST = 1e-6
"""Least distance of a probability from 0 and 1, for its log odds."""


class Margin(ElementwiseLoss):
    """exp(-u) u^2 with u = (2 y - 1) log(p / (1 - p)) - b; phi is b (DOSA).

    A label's log odds are the base learner's raw output, y+ - y-.
    """

    class Config(Strict):
        """Its settings."""

        initial: Annotated[float, Field(gt=0, lt=HIGHEST)] = 1.0
        """Initial margin b."""
        importance: Importance = "attached"
        """Factor exp(-u): attached | detached (no gradient) | none."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.importance = config.importance
        share = config.initial / HIGHEST
        self.rho = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @classmethod
    def parameters_of(cls, config: Config) -> int:
        """How many parameters it has."""
        return 1

    def begin(self, targets_P: Tensor, outputs_P: Tensor) -> None:
        """Refuse a task without labels.

        Raises:
            SpecError: Targets other than 0 and 1 occur.
        """
        if set(targets_P.tolist()) != {0.0, 1.0}:
            raise SpecError("loss", "margin takes targets 0 and 1 and probabilities, which this task has not; use mlp")

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The margin loss, elementwise."""
        p = output.clamp(LEAST, 1 - LEAST)
        odds = torch.log(p) - torch.log1p(-p)  # torch.logit has no derivative in forward mode of its own
        return margin_loss((2 * target - 1) * odds - HIGHEST * torch.sigmoid(self.rho), self.importance)
