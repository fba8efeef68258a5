"""dM_phi/df of a loss network and its own derivative in phi, in closed form: half the matrix products of autograd's."""

# N pairs (batch times outputs), H hidden units

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.losses.activation import SmoothLeakyReLU

__all__ = ["DERIVATIVES", "pair_slopes"]

Derivatives = Callable[[Any, Tensor], tuple[Tensor, Tensor, Callable[[], Tensor] | None]]
AlongPhi = Callable[[Tensor], list[tuple[Tensor, Tensor]]]
"""From t to d <slope, t> / d (weight, bias) of each layer."""


def _smooth_leaky_relu(s: SmoothLeakyReLU, z: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    return s.derivatives(z)


def _softplus(s: nn.Softplus, z: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    slope = torch.sigmoid(s.beta * z).masked_fill_(s.beta * z > s.threshold, 1.0)  # torch's softplus is linear there
    return s(z), slope, lambda: s.beta * slope * (1 - slope)


def _relu(_: nn.ReLU, z: Tensor) -> tuple[Tensor, Tensor, None]:
    return torch.relu(z), (z > 0).to(z.dtype), None


def _tanh(_: nn.Tanh, z: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    value = torch.tanh(z)
    slope = 1 - value * value
    return value, slope, lambda: -2 * value * slope


DERIVATIVES: Mapping[type[nn.Module], Derivatives] = {
    SmoothLeakyReLU: _smooth_leaky_relu,
    nn.ReLU: _relu,
    nn.Softplus: _softplus,
    nn.Tanh: _tanh,
}
"""Activation -> its value, its slope, and its second derivative where that is not 0."""


def pair_slopes(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[nn.Module | None],
    target_N: Tensor,
    output_N: Tensor,
) -> tuple[Tensor, Tensor, AlongPhi]:
    """l_phi at N pairs, d l_phi / d output, and how a sum of the latter moves with phi.

    With z the layers' sums, h = s(z), and t = z' along t_0 at the input:

        d_k  = (d_{k+1} W_{k+1}) s'(z_k)                      slope = d_1 W_1[:, 1]
        zb_k = (zb_{k+1} W_{k+1}) s'(z_k) + (d_{k+1} W_{k+1}) t_k s''(z_k)
        dW_k = d_k^T (s'(z_{k-1}) t_{k-1}) + zb_k^T h_{k-1}   gradient of <slope, t_0>

    Args:
        weights: Of each linear layer; the first takes (target, output), the last gives one value.
        biases: Of each layer.
        activations: After each layer; None: the identity.
        target_N: y_i.
        output_N: f(x)_i.

    Returns:
        loss_N, slope_N, and the function from t_N to the gradients of <slope_N, t_N>.
    """
    pairs_N2 = torch.stack((target_N, output_N), dim=1)
    values: list[Tensor] = [pairs_N2]
    slopes: list[Tensor | None] = []
    bends: list[Callable[[], Tensor] | None] = []
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        z = values[-1] @ weight.t() if bias is None else torch.addmm(bias, values[-1], weight.t())
        if activation is None:
            value, slope, bend = z, None, None
        else:
            value, slope, bend = DERIVATIVES[type(activation)](activation, z)
        values.append(value)
        slopes.append(slope)
        bends.append(bend)
    last = len(weights) - 1
    arriving = torch.ones_like(values[-1])  # d l / d h_k, from the last layer down; then d_k = d l / d z_k
    arrivals, deltas = [arriving] * len(weights), [arriving] * len(weights)
    for k in range(last, -1, -1):
        slope = slopes[k]
        arrivals[k] = arriving
        deltas[k] = arriving if slope is None else arriving * slope
        arriving = deltas[k] @ weights[k] if k else deltas[0] @ weights[0][:, 1]

    def along_phi(t_N: Tensor) -> list[tuple[Tensor, Tensor]]:
        moves: list[Tensor] = []  # t_k, the tangent of z_k
        carried: list[Tensor] = []  # the tangent of h_{k-1}
        tangent = t_N[:, None]
        for k, weight in enumerate(weights):
            carried.append(tangent)
            move = tangent * weight[:, 1] if k == 0 else tangent @ weight.t()
            moves.append(move)
            slope = slopes[k]
            tangent = move if slope is None else move * slope
        found: list[tuple[Tensor, Tensor]] = []
        curved: Tensor | None = None  # the gradient of h_k, then of z_k
        for k in range(last, -1, -1):
            slope, bend = slopes[k], bends[k]
            if curved is not None and slope is not None:
                curved = curved * slope
            if bend is not None:
                here = bend().mul_(moves[k]).mul_(arrivals[k])
                curved = here if curved is None else curved.add_(here)
            along_weight = deltas[k].t() @ carried[k]
            if k == 0:
                along_weight = torch.cat((torch.zeros_like(along_weight), along_weight), dim=1)
            if curved is not None:
                along_weight = along_weight.addmm_(curved.t(), values[k])
            bias = torch.zeros_like(weights[k][:, 0]) if curved is None else curved.sum(0)
            found.append((along_weight, bias))
            if curved is not None and k:
                curved = curved @ weights[k]
        return found[::-1]

    return values[-1][:, 0], arriving, along_phi
