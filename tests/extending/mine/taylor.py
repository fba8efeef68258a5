"""A learned loss: a polynomial of output and target with learned coefficients, as of TaylorGLO (Gonzalez and Miikkulainen 2021)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from olfl_ray.losses import ElementwiseLoss
from olfl_ray.spec import Strict


class Taylor(ElementwiseLoss):
    """A polynomial of output and target."""

    class Config(Strict):
        degree: Annotated[int, Field(ge=1, le=6)] = 3
        """Largest sum of the two powers in a term."""
        scale: Annotated[float, Field(gt=0)] = 0.1
        """Standard deviation of the initial coefficients."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        powers = [(i, j) for i in range(1, config.degree + 1) for j in range(config.degree + 1 - i)]
        self.powers, self.coefficients = powers, nn.Parameter(config.scale * torch.randn(len(powers)))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.stack([output**i * target**j for i, j in self.powers], dim=-1) @ self.coefficients
