"""Convolution and batch norm whose backward pass is differentiable in the incoming gradient, and only in that."""

# B batch, D channels

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Replacing", "Seeded", "convolution", "geometry_of", "in_autocast", "normalised_backward"]

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding and dilation per dimension, and groups."""


class Replacing(TorchFunctionMode):
    """Inside, some functions are replaced by others, which get the original as their first argument.

    Calls transformed by `torch.func` are not replaced: it does not support these custom functions.

    Args:
        replaced: Function -> its replacement.
    """

    def __init__(self, replaced: Mapping[Callable[..., Any], Callable[..., Tensor]]) -> None:
        super().__init__()
        self._replaced = replaced

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        other = self._replaced.get(func)
        if other is None or torch._C._functorch.peek_interpreter_stack() is not None:
            return func(*args, **(kwargs or {}))
        return other(func, *args, **(kwargs or {}))


class Seeded(Replacing):
    """Inside, `conv1d/2d/3d` and `batch_norm` in train mode keep a graph of their backward pass only in df.

    d <g, w> / d df needs two products per layer. PyTorch's own double backward of a convolution and of a batch norm always
    computes the derivatives in their inputs and weights as well, which doubles the cost. Values are those of the same
    kernels, except for a batch norm on a GPU: there it is torch's own kernel, where `F.batch_norm` may use cuDNN's, which
    rounds differently.

    With saved-tensor hooks, torch's own functions are used: what `torch.utils.checkpoint` recomputes must be what it ran.
    A backward pass inside (`torch.autograd.grad` in a module's `forward`) is a part of f, so it keeps torch's full graph.
    """

    def __init__(self) -> None:
        super().__init__({func: partial(other, self) for func, other in REPLACED.items()})
        self.inside = False

    def __enter__(self) -> Seeded:
        self.inside = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.inside = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in REPLACED and torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def _convolve(
    mode: Seeded,
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
    value: Tensor = _Convolution.apply(input, weight, bias, geometry, mode)  # type: ignore[no-untyped-call]
    return value


def in_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments as autocast passes them to a convolution: cast before it, so that its backward pass sees one dtype."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def geometry_of(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry | None:
    """The arguments of `torch.convolution` for those of `conv1d/2d/3d`; None if there are none."""
    sides = weight.dim() - 2
    if isinstance(padding, str) or x.dim() != sides + 2:
        return None
    stride, padding, dilation = (
        (value,) * sides if isinstance(value, int) else tuple(value) * (sides if len(value) == 1 else 1)
        for value in (stride, padding, dilation)
    )
    return stride, padding, dilation, groups


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One convolution in any number of dimensions."""
    stride, padding, dilation, groups = geometry
    return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, mode: Seeded) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.mode = geometry, mode
        return convolution(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if ctx.mode.inside:
            found = _convolution_backward(grad, x, weight, ctx.geometry, wanted)
        else:
            found = _ConvolutionBackward.apply(  # type: ignore[no-untyped-call]
                grad, x.detach(), weight.detach(), ctx.geometry, wanted
            )
        return (*found, None, None)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: Any) -> Any:
    stride, padding, dilation, groups = geometry
    outputs = [grad.shape[1]] if wanted[2] else None
    return torch.ops.aten.convolution_backward(
        grad, x, weight, outputs, stride, padding, dilation, False, [0] * len(stride), groups, list(wanted)
    )


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, geometry: Any, wanted: Any) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.shape = geometry, grad.shape
        ctx.set_materialize_grads(False)
        return _convolution_backward(grad, x, weight, geometry, wanted)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Any:
        x, weight = ctx.saved_tensors
        along_x, along_weight, along_bias = along
        total: Tensor | None = None
        if along_weight is not None:
            total = convolution(x, along_weight, along_bias, ctx.geometry)
        elif along_bias is not None:
            total = along_bias.reshape(1, -1, *([1] * (x.dim() - 2))).expand(ctx.shape)
        if along_x is not None:
            moved = convolution(along_x, weight, None, ctx.geometry)
            total = moved if total is None else moved.add_(total)
        return total, None, None, None, None


def _normalise(
    mode: Seeded,
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
    if not training or weight is None or bias is None or single:
        return func(input, running_mean, running_var, weight, bias, training, momentum, eps)
    value: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
        input, weight, bias, running_mean, running_var, momentum, eps, mode
    )
    return value


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        mode: Seeded,
    ) -> Tensor:
        value, mean_D, invstd_D = torch.native_batch_norm(
            x, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(x, weight, mean_D, invstd_D)
        ctx.eps, ctx.mode = eps, mode
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, mean_D, invstd_D = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if ctx.mode.inside:
            found = normalised_backward(grad, x, weight, mean_D, invstd_D, ctx.eps, wanted)
        else:
            found = _BatchNormBackward.apply(  # type: ignore[no-untyped-call]
                grad, x.detach(), weight.detach(), mean_D, invstd_D, ctx.eps, wanted
            )
        return (*found, None, None, None, None, None)


class _BatchNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, mean_D: Tensor, invstd_D: Tensor, eps: float, wanted: Any
    ) -> Any:
        ctx.save_for_backward(x, weight, mean_D, invstd_D)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return normalised_backward(grad, x, weight, mean_D, invstd_D, eps, wanted)

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Any:
        x, weight_D, mean_D, invstd_D = ctx.saved_tensors
        along_x, along_weight, along_bias = along
        total: Tensor | None = None
        if along_x is not None:  # from df to dx a batch norm's backward pass is symmetric
            total, _, _ = normalised_backward(
                along_x.contiguous(), x, weight_D, mean_D, invstd_D, ctx.eps, (True, False, False)
            )
        if along_weight is not None or along_bias is not None:
            gain_D = torch.zeros_like(weight_D) if along_weight is None else along_weight * invstd_D
            shift_D = -gain_D * mean_D if along_bias is None else along_bias - gain_D * mean_D
            shape = (1, -1, *([1] * (x.dim() - 2)))
            affine = torch.addcmul(shift_D.reshape(shape), x, gain_D.reshape(shape))
            total = affine if total is None else total.add_(affine)
        return total, None, None, None, None, None, None


def normalised_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mean_D: Tensor, invstd_D: Tensor, eps: float, wanted: Any
) -> Any:
    """A batch norm's gradients in its input, weight and bias, as far as they are wanted."""
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, weight, None, None, mean_D, invstd_D, True, eps, list(wanted)
    )


REPLACED: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    torch.conv1d: _convolve,
    torch.conv2d: _convolve,
    torch.conv3d: _convolve,
    F.batch_norm: _normalise,
}
