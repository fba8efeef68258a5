"""A backbone with named heads: perceptron or small convolutional network, one output layer or perceptron per head."""

# B batch

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.models.shapes import Shape, image

__all__ = ["MultiHead", "multihead"]


class MultiHead(nn.Module):
    """Named heads on the features of one backbone.

    Args:
        backbone: From inputs to features (B, D).
        heads: By name, from features to a head's outputs.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, tuple(heads)
        self.heads = nn.ModuleDict({_key(name, heads): head for name, head in heads.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs (B, C_h) of each head."""
        features = self.backbone(x)
        return {name: head(features) for name, head in zip(self.names, self.heads.values(), strict=True)}


def _key(name: str, heads: Mapping[str, nn.Module]) -> str:
    """A head's name as that of a submodule, which may not be an attribute of every module, such as `type`: then `type_`."""
    key = name
    while hasattr(nn.ModuleDict(), key) or (key != name and key in heads):
        key += "_"
    return key


class OneHead(MultiHead):
    """The same for a data set of one task: the outputs of its only head."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The outputs (B, C)."""
        (found,) = super().forward(x).values()
        return found


def multihead(
    input_shape: Shape,
    outputs: int,
    heads: Mapping[str, int] | None = None,
    hidden: Sequence[int] = (64,),
    channels: Sequence[int] = (),
    head_hidden: Sequence[int] = (),
) -> nn.Module:
    """A backbone of 3x3 convolutions (`channels`, images only) and hidden layers, and a head for each task, or one head."""
    for option, sizes in (("hidden", hidden), ("channels", channels), ("head_hidden", head_hidden)):
        if not isinstance(sizes, list | tuple) or not all(type(units) is int and units > 0 for units in sizes):
            raise SpecError(f"task.model.{option}", f"must be a list of positive integers, but it is {sizes!r}")
    layers, width = _convolutions(input_shape, channels)
    layers += _layers([width, *hidden])
    width = hidden[-1] if hidden else width
    found = {
        name: nn.Sequential(*_layers([width, *head_hidden]), nn.Linear([width, *head_hidden][-1], units))
        for name, units in (heads or {"outputs": outputs}).items()
    }
    return (MultiHead if heads else OneHead)(nn.Sequential(*layers), found)


def _convolutions(input_shape: Shape, channels: Sequence[int]) -> tuple[list[nn.Module], int]:
    """Convolutions, each halving the image while it has at least four pixels a side; and the number of features after them."""
    if not channels:
        return [nn.Flatten()] if len(input_shape) > 1 else [], math.prod(input_shape)
    inputs, height, width = image(input_shape, "multihead with channels", 1)
    layers: list[nn.Module] = []
    for units in channels:
        layers += [nn.Conv2d(inputs, units, 3, padding=1), nn.ReLU()]
        if min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        inputs = units
    return [*layers, nn.Flatten()], inputs * height * width


def _layers(sizes: Sequence[int]) -> list[Any]:
    found: list[nn.Module] = []
    for inputs, units in itertools.pairwise(sizes):
        found += [nn.Linear(inputs, units), nn.ReLU()]
    return found
