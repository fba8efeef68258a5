"""From settings to a learned loss, seeded; built-in names and a user's builder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.learned import Kind, LearnedLoss, LossNetwork
from olfl_ray.plugins import load_builder
from olfl_ray.spec import LearnedLossSpec

__all__ = ["build_loss"]


def build_loss(spec: LearnedLossSpec, kind: Kind, *, seed: int) -> LearnedLoss:
    """Build M_phi with initial weights drawn from `seed`; the global random state is left alone.

    Args:
        spec: Settings. `package.module:builder` is called with the options and gives an `nn.Module` l_phi(target, output).
        kind: What goes into the loss network.
        seed: Seed of the initial weights.

    Raises:
        SpecError: A user's builder does not give an elementwise module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        return LearnedLoss(_network(spec), kind, spec.reduction, spec)


def _network(spec: LearnedLossSpec) -> nn.Module:
    if spec.name == "mlp":
        return LossNetwork(
            spec.hidden,
            _activation(spec.activation),
            softplus_output=spec.output == "softplus",
            bias=spec.bias,
            init=spec.init,
        )
    if spec.name == "ml3":
        return LossNetwork((50, 50), nn.ReLU(), softplus_output=True, bias=False, init=spec.init)
    return _user_network(spec)


def _user_network(spec: LearnedLossSpec) -> nn.Module:
    builder = load_builder(spec.name, "loss.name")
    try:
        network = builder(**spec.options)
    except (Exception, SystemExit) as error:
        raise SpecError(
            "loss.name", f"{spec.name!r} raised {type(error).__name__}: {error}; correct the builder"
        ) from error
    if not isinstance(network, nn.Module):
        raise SpecError("loss.name", f"{spec.name!r} gave a {type(network).__name__}; it must give an nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise SpecError("loss.name", f"{spec.name!r} gave a module without parameters to learn; give it some")
    probe = torch.zeros(3, 2)
    try:
        value = network(probe, probe)
    except (Exception, SystemExit) as error:
        raise SpecError(
            "loss.name", f"{spec.name!r} can't be called as l_phi(target, output): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.shape != probe.shape:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise SpecError("loss.name", f"{spec.name!r} must keep the shape (3, 2) of its inputs, but gave {shape}")
    return network


def _activation(spec: Any) -> nn.Module:
    if spec.name == "smooth_leaky_relu":
        return SmoothLeakyReLU(spec.beta, spec.gamma)
    kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus, "tanh": nn.Tanh}
    return kinds[spec.name]()
