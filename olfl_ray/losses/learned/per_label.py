"""A loss network that also receives which label or class a pair belongs to: l(y, f, c)."""

# P pairs, C labels or classes, H units of the first hidden layer

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.learned.mlp import Mlp

__all__ = ["PerLabel"]


class PerLabel(Mlp):
    """A perceptron of target, output and label, or class: l(y, f, c).

    The label is a one-hot input of the first layer, that is a vector of its own that is added there. These vectors start at 0: at
    first it is the `mlp` of the same seed, the same for all labels.
    """

    class Config(Mlp.Config):
        """Its settings."""

        labels: Annotated[int, Field(ge=1, le=10_000)]
        """Number of labels or classes, that of the data set."""

    by_output = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.label_CH = nn.Parameter(torch.zeros(config.labels, config.hidden[0]))

    @classmethod
    def parameters_of(cls, config: Config) -> int:  # type: ignore[override]
        """How many parameters it has."""
        return super().parameters_of(config) + config.labels * config.hidden[0]

    def forward(self, output: Tensor, target: Tensor, index: Tensor | None = None) -> Tensor:
        """l_phi of each pair and its label.

        Args:
            output: f(x)_c, any shape.
            target: y_c, the same shape.
            index: c, integers of the same shape; None: the mean over all labels.

        Raises:
            SpecError: There are labels that it does not have.
        """
        labels = len(self.label_CH)
        if index is None:
            every_C = torch.arange(labels, device=output.device)
            shape = (*output.shape, labels)
            return self.forward(
                output[..., None].expand(shape), target[..., None].expand(shape), every_C.expand(shape)
            ).mean(-1)
        if index.shape[-1] != labels:
            raise SpecError(
                "loss.labels",
                f"is {labels}, but the data set has {index.shape[-1]}; set loss.labels: {index.shape[-1]}",
            )
        first, *others = self.layers
        pairs_P2 = torch.stack((target.reshape(-1), output.reshape(-1)), dim=1)
        hidden_PH = first(pairs_P2) + self.label_CH[index.reshape(-1)]
        value_P1: Tensor = nn.Sequential(*others)(hidden_PH)
        return value_P1.reshape(output.shape)
