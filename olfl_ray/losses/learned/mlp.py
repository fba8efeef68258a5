"""A small perceptron of (target, output), with any number of layers (AdaLFL: Raymond et al., arXiv 2301.13247)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag
from torch import nn

from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.network import LossNetwork
from olfl_ray.spec import Strict, as_named, as_tuple

__all__ = ["Mlp"]

PLAIN: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus, "tanh": nn.Tanh}
Units: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1, le=100_000)], ...], BeforeValidator(as_tuple), Field(min_length=1)
]


class SmoothLeakyReluSpec(Strict):
    """s(z) = (1/beta) log(exp(beta z) + 1) (1 - gamma) + gamma z."""

    name: Literal["smooth_leaky_relu"] = "smooth_leaky_relu"
    """smooth_leaky_relu"""
    beta: Annotated[float, Field(gt=0)] = 10.0
    """Sharpness of the bend."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Slope for negative inputs."""

    def build(self) -> nn.Module:
        """The module."""
        return SmoothLeakyReLU(self.beta, self.gamma)


class PlainActivationSpec(Strict):
    """An activation without settings."""

    name: Literal["relu", "softplus", "tanh"]
    """relu | softplus | tanh"""

    def build(self) -> nn.Module:
        """The module."""
        return PLAIN[self.name]()


def _kind(value: Any) -> str:
    name = value.get("name", "smooth_leaky_relu") if isinstance(value, dict) else getattr(value, "name", None)
    return "plain" if name in PLAIN else "smooth"


Activation: TypeAlias = Annotated[
    Annotated[SmoothLeakyReluSpec, Tag("smooth")] | Annotated[PlainActivationSpec, Tag("plain")],
    Discriminator(_kind),
    BeforeValidator(as_named),
]


class Mlp(LossNetwork):
    """A perceptron of target and output (AdaLFL)."""

    class Config(Strict):
        """Its settings."""

        hidden: Units = (40, 40)
        """Units of the hidden layers."""
        activation: Activation = SmoothLeakyReluSpec()
        """Hidden activation."""
        output: Literal["none", "softplus"] = "none"
        """Output activation; softplus makes the loss positive."""
        bias: bool = False
        """Biases in every layer; they start at 0."""
        init: Literal["kaiming_normal", "xavier_uniform"] = "kaiming_normal"
        """Initial weights."""

    sized_by = "hidden"

    def __init__(self, config: Config) -> None:
        super().__init__(
            config.hidden,
            config.activation.build(),
            softplus_output=config.output == "softplus",
            bias=config.bias,
            init=config.init,
        )

    @classmethod
    def parameters_of(cls, config: Config) -> int:
        """How many parameters it has."""
        return cls.count(config.hidden, bias=config.bias)
