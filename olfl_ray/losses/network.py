"""A perceptron of (target, output): the network of `mlp` and `ml3`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.elementwise import ElementwiseLoss, Slopes
from olfl_ray.losses.slopes import DERIVATIVES, pair_slopes

__all__ = ["LossNetwork"]


class LossNetwork(ElementwiseLoss):
    """l_phi : R^2 -> R, a small perceptron of (target, output). The defaults are those of AdaLFL (arXiv 2301.13247).

    Args:
        hidden: Units of the hidden layers.
        activation: Hidden activation; None: `SmoothLeakyReLU()`.
        softplus_output: Softplus on the output, which makes the loss positive.
        bias: Biases in every layer.
        init: Initial weights: kaiming_normal or xavier_uniform; biases start at 0.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (40, 40),
        activation: nn.Module | None = None,
        *,
        softplus_output: bool = False,
        bias: bool = False,
        init: Literal["kaiming_normal", "xavier_uniform"] = "kaiming_normal",
    ) -> None:
        super().__init__(None)
        activation = SmoothLeakyReLU() if activation is None else activation
        sizes = [2, *hidden, 1]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            linear = nn.Linear(inputs, outputs, bias=bias)
            if init == "kaiming_normal":
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)
            layers.append(linear)
            if index < len(hidden):
                layers.append(activation)
        if softplus_output:
            layers.append(nn.Softplus())
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def count(hidden: tuple[int, ...], *, bias: bool) -> int:
        """How many parameters such a network has."""
        return sum((inputs + bias) * outputs for inputs, outputs in itertools.pairwise([2, *hidden, 1]))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """l_phi, elementwise."""
        pairs_N2 = torch.stack((target.reshape(-1), output.reshape(-1)), dim=1)
        value: Tensor = self.layers(pairs_N2)
        return value.reshape(output.shape)

    @property
    def closed(self) -> bool:
        """Whether it is linear layers and activations of known derivatives, as it is built."""
        kinds = [type(layer) for layer in self.layers]
        known = set(kinds[::2]) == {nn.Linear} and set(kinds[1::2]) <= set(DERIVATIVES)
        return known and type(self.layers) is nn.Sequential

    def slopes(self, phi: Mapping[str, Tensor], output_N: Tensor, target_N: Tensor) -> Slopes:
        """From layer to layer (`pair_slopes`)."""
        layers: Any = self.layers
        linear = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        activations = [layers[index + 1] if index + 1 < len(layers) else None for index in linear]
        weights = [phi.get(f"layers.{index}.weight", layers[index].weight) for index in linear]
        biases = [phi.get(f"layers.{index}.bias", layers[index].bias) for index in linear]
        loss_N, slope_N, along_phi = pair_slopes(weights, biases, activations, target_N, output_N)

        def gradient(t_N: Tensor) -> dict[str, Tensor]:
            grads = {}
            for index, (weight, bias) in zip(linear, along_phi(t_N), strict=True):
                grads[f"layers.{index}.weight"], grads[f"layers.{index}.bias"] = weight, bias
            return grads

        return loss_N, slope_N, gradient
