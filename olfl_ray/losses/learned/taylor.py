"""A third-order Taylor polynomial of target and prediction (TaylorGLO: Gonzalez and Miikkulainen, arXiv 2002.00059)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.spec import Strict

__all__ = ["Taylor"]

COEFFICIENTS = ("f", "ff", "fff", "yf", "yff", "yyf")
"""The settings that are coefficients, in phi's order."""


class Taylor(ElementwiseLoss):
    """A third-order polynomial around two centres, with only the terms that reach the prediction (TaylorGLO).

    With d = f - output_center and e = y - target_center, the loss is

        f d + ff d^2 / 2 + fff d^3 / 6 + yf e d + yff e d^2 / 2 + yyf e^2 d / 2,

    so a coefficient is the derivative that it is named after, at the centre. The slope in f is a polynomial of degree 2 in y and f,
    and any such polynomial is reached for any centres: they give the search its coordinates, and add no loss.
    """

    class Config(Strict):
        """Its settings. The defaults are the squared error, (y - f)^2 less y^2."""

        target_center: float = 0.0
        """Centre of the target."""
        output_center: float = 0.0
        """Centre of the prediction."""
        f: float = 0.0
        """First derivative in the prediction."""
        ff: float = 2.0
        """Second derivative in the prediction."""
        fff: float = 0.0
        """Third derivative in the prediction."""
        yf: float = -2.0
        """Mixed second derivative."""
        yff: float = 0.0
        """Third derivative, once in the target and twice in the prediction."""
        yyf: float = 0.0
        """Third derivative, twice in the target and once in the prediction."""
        weights: Literal["learned", "fixed"] = "learned"
        """learned: the six coefficients start at these values | fixed: they keep them, and nothing of the loss is learned."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.target_center, self.output_center = config.target_center, config.output_center
        self.values = [getattr(config, name) for name in COEFFICIENTS]
        self.coefficients = nn.Parameter(torch.tensor(self.values)) if config.weights == "learned" else None

    @classmethod
    def parameters_of(cls, config: Config) -> int:
        """How many parameters it has."""
        return len(COEFFICIENTS) if config.weights == "learned" else 0

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The polynomial's value, elementwise."""
        d, e = output - self.output_center, target - self.target_center
        f, ff, fff, yf, yff, yyf = self.values if self.coefficients is None else self.coefficients.unbind()
        return d * (f + yf * e + yyf / 2 * e * e + d * ((ff + yff * e) / 2 + fff / 6 * d))
