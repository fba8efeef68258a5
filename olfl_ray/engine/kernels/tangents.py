"""Convolution and batch norm in forward mode without wasted products and temporaries: f(x) and J_f w together."""

# B batch, D channels

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from olfl_ray.engine.kernels.seeded import Replacing, convolution, geometry_of, in_autocast, normalised_backward

__all__ = ["Tangents"]

PARTS = 4
"""Number of pieces of a batch in which the tangent's second product is added: a quarter of the memory for temporaries."""


class Tangents(Replacing):
    """Inside, under `no_grad`, `conv1d/2d/3d` and `batch_norm` in train mode compute their own tangents.

    PyTorch's own forward mode also multiplies by the zero tangent of a network's input, and holds four tensors of a
    convolution's output size at once; its batch norm takes a dozen passes over memory where three suffice. If a module
    enables gradients, to compute one in its `forward`, torch's own functions are used.
    """

    def __init__(self) -> None:
        super().__init__(REPLACED)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in REPLACED and torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def _split(value: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if value is None else tuple(forward_ad.unpack_dual(value))


def _convolve(
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    input, weight, bias = in_autocast(input, weight, bias)
    geometry = geometry_of(input, weight, stride, padding, dilation, groups)
    if geometry is None:
        return func(input, weight, bias, stride, padding, dilation, groups)
    (x, x_along), (kernel, kernel_along), (shift, shift_along) = _split(input), _split(weight), _split(bias)
    assert x is not None
    assert kernel is not None
    if x_along is None and kernel_along is None:
        return func(input, weight, bias, stride, padding, dilation, groups)
    value = convolution(x, kernel, shift, geometry)
    along = torch.empty_like(value) if x_along is None else convolution(x_along, kernel, None, geometry)
    if kernel_along is not None:
        rows = -(-len(x) // PARTS) if value.device.type == "cpu" and value.numel() > PARTS * kernel.numel() else len(x)
        for x_part, along_part in zip(x.split(rows), along.split(rows), strict=True):
            part = convolution(x_part, kernel_along, shift_along, geometry)
            if x_along is None:
                along_part.copy_(part)
            else:
                along_part.add_(part)
    elif shift_along is not None:
        along += shift_along.reshape(-1, *([1] * (x.dim() - 2)))
    dual: Tensor = forward_ad.make_dual(value, along)
    return dual


def _normalise(
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    single = input.numel() == input.shape[1]  # torch refuses this
    (x, x_along), (gain, gain_along), (shift, shift_along) = _split(input), _split(weight), _split(bias)
    if not training or gain is None or shift is None or single:
        return func(input, running_mean, running_var, weight, bias, training, momentum, eps)
    assert x is not None
    value, mean_D, invstd_D = torch.native_batch_norm(x, gain, shift, running_mean, running_var, True, momentum, eps)
    along = torch.zeros_like(value)
    if x_along is not None:
        # From dx to df a batch norm's Jacobian is symmetric, so its backward pass is also its tangent.
        along, _, _ = normalised_backward(x_along.contiguous(), x, gain, mean_D, invstd_D, eps, (True, False, False))
    shape = (1, -1, *([1] * (x.dim() - 2)))
    if gain_along is not None:
        slope_D = gain_along * invstd_D
        along.addcmul_(x, slope_D.reshape(shape)).sub_((slope_D * mean_D).reshape(shape))
    if shift_along is not None:
        along += shift_along.reshape(shape)
    dual: Tensor = forward_ad.make_dual(value, along)
    return dual


REPLACED: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    torch.conv1d: _convolve,
    torch.conv2d: _convolve,
    torch.conv3d: _convolve,
    F.batch_norm: _normalise,
}
