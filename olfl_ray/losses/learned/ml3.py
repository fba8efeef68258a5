"""The loss network of ML3 (Bechtle et al. 2021): 2-50-50-1, ReLU, Softplus output, no biases."""

from __future__ import annotations

from typing import Literal

from torch import nn

from olfl_ray.losses.network import LossNetwork
from olfl_ray.spec import Strict

__all__ = ["Ml3"]


class Ml3(LossNetwork):
    """A perceptron 2-50-50-1 with ReLU, Softplus output and no biases (ML3)."""

    class Config(Strict):
        """Its settings."""

        init: Literal["kaiming_normal", "xavier_uniform"] = "kaiming_normal"
        """Initial weights."""

    def __init__(self, config: Config) -> None:
        super().__init__((50, 50), nn.ReLU(), softplus_output=True, bias=False, init=config.init)
