"""DOSA's base learner (arXiv 2402.04596): spiking layers, and for each label two outputs that do not spike.

The source states the layers, the two outputs and their tanh, averaged over the simulation. What it does not state is our reading:
the input is a constant current for every step, the potential of an output adds up its current without a leak, each hidden layer has
one time constant, and the neuron is that of Fang et al. 2021 (parametric leaky integrate-and-fire, ATan as surrogate).
"""

# B batch, T steps of the simulation, N neurons, L labels

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.models.shapes import Shape, positive_int

__all__ = ["Dosa", "ParametricLif", "dosa", "spike"]

THRESHOLD = 1.0
"""Potential at which a neuron fires; it is reset to 0."""
FIRING = 0.1
"""Share of neurons that are assumed to spike at a step, for the initial weights of the layer after them."""
SHARPNESS = 2.0
"""alpha of the surrogate (1 / pi) arctan(pi / 2 alpha u) + 1 / 2."""


def spike(u: Tensor) -> Tensor:
    """1 where u >= 0, else 0; its derivatives, of any order, are those of the surrogate.

    Args:
        u: Potential above the threshold, any shape.
    """
    soft = torch.atan((math.pi / 2 * SHARPNESS) * u) / math.pi
    return (u >= 0).to(u.dtype) + (soft - soft.detach())


class ParametricLif(nn.Module):
    """A layer of leaky integrate-and-fire neurons with a learned time constant tau = 1 / sigmoid(w).

    At each step v <- v + sigmoid(w) (I - v); a neuron spikes where v >= 1, and v is then 0. The reset passes no gradient.

    Args:
        tau: Initial time constant in steps, above 1.
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1.0)))

    def forward(self, current_TBN: Tensor) -> Tensor:
        """Spikes (T, B, N) of a current (T, B, N); v starts at 0."""
        rate, spikes = torch.sigmoid(self.w), []
        v_BN = torch.zeros_like(current_TBN[0])
        for current_BN in current_TBN.unbind():
            v_BN = v_BN + rate * (current_BN - v_BN)
            s_BN = spike(v_BN - THRESHOLD)
            spikes.append(s_BN)
            v_BN = v_BN * (1 - s_BN.detach())
        return torch.stack(spikes)


class Dosa(nn.Module):
    """Fully connected spiking layers, then a positive and a negative output for each label.

    The initial weights of a spiking layer are those of He et al. 2015 for inputs with mean square 1 (features), or 0.1 (spikes).
    With torch's default, a second layer would not spike at all.

    Args:
        inputs: Number of features.
        outputs: L, number of labels.
        hidden: N of each spiking layer.
        steps: T.
        tau: Initial time constant of each spiking layer, in steps.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int], steps: int, tau: float) -> None:
        super().__init__()
        self.steps = steps
        sizes = [inputs, *hidden]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        for index, linear in enumerate(self.layers):
            assert isinstance(linear, nn.Linear)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            if index > 0:
                linear.weight.data /= math.sqrt(FIRING)
        self.neurons = nn.ModuleList(ParametricLif(tau) for _ in hidden)
        self.positive, self.negative = nn.Linear(sizes[-1], outputs), nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """y+ - y- (B, L), in (-2, 2); a label is predicted where it is above 0."""
        positive_BL, negative_BL = self.both(x)
        return positive_BL - negative_BL

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y+ and y-, both (B, L) in (-1, 1): tanh of the accumulated potential, averaged over the simulation."""
        values_TBN = x.flatten(1).expand(self.steps, -1, -1)
        for index, (linear, neurons) in enumerate(zip(self.layers, self.neurons, strict=True)):
            current = linear(values_TBN[0]).expand(self.steps, -1, -1) if index == 0 else linear(values_TBN)
            values_TBN = neurons(current)
        potentials = (torch.cumsum(output(values_TBN), 0) for output in (self.positive, self.negative))
        positive_BL, negative_BL = (torch.tanh(potential_TBL).mean(0) for potential_TBL in potentials)
        return positive_BL, negative_BL


def dosa(
    input_shape: Shape, outputs: int, hidden: Sequence[int] = (128,), steps: int = 8, tau: float = 2.0
) -> nn.Module:
    """DOSA's spiking network with two outputs a label; it returns their difference."""
    if not isinstance(hidden, list | tuple) or not hidden:
        raise SpecError("task.model.hidden", f"must be a list of positive integers, but it is {hidden!r}")
    sizes = [positive_int(units, "hidden") for units in hidden]
    if not _number(tau) or not 1 < tau < math.inf:
        raise SpecError("task.model.tau", f"`1 < tau` must hold, but it is {tau!r}; 2 is the usual value")
    return Dosa(math.prod(input_shape), outputs, sizes, positive_int(steps, "steps"), float(tau))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
