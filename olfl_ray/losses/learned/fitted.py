"""A perceptron that starts at the shape of another learned loss, instead of random weights."""

# P pairs

from __future__ import annotations

from typing import Annotated, TypeAlias

import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.chosen import LEARNED
from olfl_ray.losses.learned.mlp import Mlp
from olfl_ray.spec import as_tuple

__all__ = ["Fitted"]

POINTS = 41


def _known(name: str) -> str:
    if ":" in name or name == "fitted":
        raise ValueError(f"must be a built-in learned loss other than fitted, but it is {name!r}; margin is one")
    try:
        LEARNED.find(name, "")
    except SpecError as error:
        raise ValueError(error.problem) from None
    return name


def _range(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"`low < high` must hold, but it is {list(ends)}; swap them")
    return ends


Range: TypeAlias = Annotated[tuple[float, float], BeforeValidator(as_tuple), AfterValidator(_range)]


class Fitted(Mlp):
    """A perceptron, as `mlp`, that is fitted to another learned loss at its defaults before it is learned."""

    class Config(Mlp.Config):
        """Its settings."""

        to: Annotated[str, AfterValidator(_known)] = "margin"
        """The built-in learned loss that it is fitted to."""
        within: Range = (0.12, 0.88)
        """Predictions on which it is fitted, from low to high; the default is that of scores in (-2, 2), as probabilities."""
        iterations: Annotated[int, Field(ge=1)] = 300
        """Iterations of L-BFGS."""
        bias: bool = True
        """Biases in every layer; they start at 0."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.wanted, self.within, self.iterations = config.to, config.within, config.iterations

    def begin(self, targets_P: Tensor, outputs_P: Tensor) -> None:
        """Least squares by L-BFGS in float64, in units of the other loss's standard deviation, on the targets that occur."""
        kind = LEARNED.find(self.wanted, "loss.to")
        other = kind(kind.Config())
        other.begin(targets_P, outputs_P)
        line = torch.linspace(*self.within, POINTS, dtype=torch.float64)
        target_P, output_P = torch.cartesian_prod(targets_P.unique().double(), line).unbind(1)
        with torch.no_grad():
            wanted_P = other.double()(output_P, target_P)
        scale = wanted_P.std().clamp_min(torch.finfo(torch.float32).tiny)
        self.double()
        optimizer = torch.optim.LBFGS(self.parameters(), max_iter=self.iterations, line_search_fn="strong_wolfe")

        def error() -> Tensor:
            optimizer.zero_grad()
            off: Tensor = (self(output_P, target_P) - wanted_P / scale).square().mean()
            off.backward()
            return off

        optimizer.step(error)
        self.zero_grad()
        last = [layer for layer in self.layers if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            for value in last.parameters():
                value.mul_(scale)
        self.float()
