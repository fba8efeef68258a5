"""Smooth leaky ReLU: s(z) = (1/beta) log(exp(beta z) + 1) (1 - gamma) + gamma z, with its derivatives in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SmoothLeakyReLU"]


class SmoothLeakyReLU(nn.Module):
    """Smooth and unbounded, so it breeds no flat regions (AdaLFL, arXiv 2301.13247).

    A meta-gradient needs s, s' and s'' of every hidden unit of the loss network. Autograd's own second derivative of
    softplus takes a dozen passes over memory; in closed form s' takes two and s'' three.

    Args:
        beta: Sharpness of the bend, above 0.
        gamma: Slope far left of 0, in [0, 1].
    """

    def __init__(self, beta: float = 10.0, gamma: float = 0.01) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise; any shape."""
        value: Tensor = _Value.apply(z, self.beta, self.gamma)  # type: ignore[no-untyped-call]
        return value

    def derivatives(self, z: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        """s(z), s'(z), and the function that gives s''(z)."""
        slope = _slope(z, self.beta, self.gamma)
        return _value(z, self.beta, self.gamma), slope, lambda: _bend(slope, self.beta, self.gamma)


class _Value(torch.autograd.Function):
    """s; its derivative is `_Slope`."""

    @staticmethod
    def forward(z: Tensor, beta: float, gamma: float) -> Tensor:
        return _value(z, beta, gamma)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        z, ctx.beta, ctx.gamma = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        slope: Tensor = _Slope.apply(z, ctx.beta, ctx.gamma)  # type: ignore[no-untyped-call]
        return grad * slope, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * _slope(z, ctx.beta, ctx.gamma)


class _Slope(torch.autograd.Function):
    """s' = (1 - gamma) sigmoid(beta z) + gamma, whose derivative needs only s'."""

    @staticmethod
    def forward(z: Tensor, beta: float, gamma: float) -> Tensor:
        return _slope(z, beta, gamma)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        _, ctx.beta, ctx.gamma = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * _bend(slope, ctx.beta, ctx.gamma), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        (slope,) = ctx.saved_tensors
        return tangent * _bend(slope, ctx.beta, ctx.gamma)


def _value(z: Tensor, beta: float, gamma: float) -> Tensor:
    # (1/beta) log(1 + exp(beta z)) = max(z, 0) + (1/beta) log(1 + exp(-beta |z|)), from operators that are vectorised,
    # as softplus and log1p are not.
    bend = z.abs().mul_(-beta).exp_().add_(1).log_()
    return F.leaky_relu(z, gamma).add_(bend, alpha=(1 - gamma) / beta)


def _slope(z: Tensor, beta: float, gamma: float) -> Tensor:
    return torch.sigmoid(beta * z).mul_(1 - gamma).add_(gamma)


def _bend(slope: Tensor, beta: float, gamma: float) -> Tensor:
    """s'' = beta (s' - gamma) (1 - s') / (1 - gamma); 0 where gamma is 1 and s is the identity."""
    scale = beta / (1 - gamma) if gamma < 1 else 0.0
    return (slope - gamma).mul_(1 - slope).mul_(scale)
