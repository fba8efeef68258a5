"""A physically smaller network with the same outputs: channels whose next layer ignores them are removed, and so is their origin.

The supported form is a chain: linear layers and convolutions, with elementwise activations, batch norms, pools, dropout and one
flattening in between; or such a backbone with heads that are chains.
"""

# I inputs (channels of a convolution) and O outputs of a layer, S numbers that flattening makes of one channel

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.errors import DataError

__all__ = ["Select", "pruned"]

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.CELU,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.ELU,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)
POOLS: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
)
NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS)
CHANNELWISE = (*ELEMENTWISE, *POOLS, *NORMS)
"""What treats each channel by itself, so that a channel may be removed from it."""
CLOSE = 1e-4
"""Largest distance of the outputs from those of the dense network, relative to the largest of them."""


class Select(nn.Module):
    """Some of the input's features or channels.

    Args:
        kept: Their indices.
    """

    kept_I: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept_I", kept)

    def forward(self, x: Tensor) -> Tensor:
        """The input with the kept ones alone."""
        return x.index_select(1, self.kept_I)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One part of a chain.

    Args:
        name: Its dotted name.
        module: The part, a copy that may be changed.
        size: S, numbers of one channel of its input.
    """

    name: str
    module: nn.Module
    size: int


def pruned(module: nn.Module, example: Tensor) -> nn.Module:
    """The smaller network, in evaluation mode; the given one is not changed.

    An input channel of a layer is removed if all of its weights are exactly 0: then the output channel that makes it has no use,
    and is removed from the layer before, with its part of a batch norm. Features of the network's own input are selected. A
    layer keeps at least one input.

    Args:
        module: The network. In evaluation mode its outputs are those of the smaller one, up to rounding.
        example: Inputs (B, ...) to try both on.

    Raises:
        DataError: It is not of the supported form, or the outputs differ.
    """
    dense = copy.deepcopy(module).eval()  # a layer that is used twice becomes two
    with torch.no_grad():
        wanted = dense(example)
        small = _small(dense, example).eval()
        try:
            same = _equal(small(example), wanted)
        except (RuntimeError, ValueError, TypeError):  # a forward with another use for the features, or a hook
            same = False
    if not same:
        raise DataError(
            "pruned: the smaller network gives other outputs, so its forward does more than apply its parts in their order; "
            "use a chain of layers (nn.Sequential)"
        )
    return small


def _small(dense: nn.Module, example: Tensor) -> nn.Module:
    children = dict(dense.named_children())
    heads = children.get("heads")
    if children.keys() != {"backbone", "heads"} or not isinstance(heads, nn.ModuleDict):
        chain, outputs = _chain(dense, "", example)
        return _built(chain, _all(example), _all(outputs))[0]
    backbone, features = _chain(children["backbone"], "backbone", example)
    chains = {name: _chain(head, f"heads.{name}", features) for name, head in heads.items()}
    used = sorted({channel for chain, found in chains.values() for channel in _needed(chain, _all(found))[0]})
    small = copy.copy(dense)
    small._modules = dict(dense._modules)
    small.backbone, given = _built(backbone, _all(example), used)
    small.heads = nn.ModuleDict({name: _built(chain, given, _all(found))[0] for name, (chain, found) in chains.items()})
    return small


def _all(x: Tensor) -> list[int]:
    return list(range(x.shape[1]))


def _chain(module: nn.Module, name: str, x: Tensor) -> tuple[list[_Layer], Tensor]:
    """The parts in their order, and what they make of x.

    Raises:
        DataError: A part is of no supported kind.
    """
    if type(module) is nn.Sequential:
        found: list[_Layer] = []
        for key, part in module._modules.items():  # a part that is used twice is there twice
            assert part is not None
            more, x = _chain(part, f"{name}.{key}" if name else key, x)
            found += more
        return found, x
    _check(module, name, x)
    return [_Layer(name=name, module=copy.deepcopy(module), size=x[0, 0].numel())], module(x)


def _check(module: nn.Module, name: str, x: Tensor) -> None:
    kind, reason = type(module), ""
    if kind in CONVOLUTIONS and (module.groups != 1 or x.dim() != module.weight.dim()):  # type: ignore[operator]
        reason = "is a convolution in groups" if module.groups != 1 else "takes inputs without a batch"
    elif kind is nn.Linear and x.dim() != 2:
        reason = f"is applied to inputs of {x.dim()} dimensions"
    elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        reason = "flattens only some dimensions"
    elif kind in POOLS and getattr(module, "return_indices", False):
        reason = "also returns indices"
    elif kind in POOLS and x.dim() != int(kind.__name__[-2]) + 2:
        reason = f"is applied to inputs of {x.dim()} dimensions, which it takes for one without a batch"
    elif kind not in (*CONVOLUTIONS, *CHANNELWISE, nn.Linear, nn.Flatten):
        reason = f"is a {kind.__name__}"
    if reason:
        raise DataError(
            f"pruned: {name or 'the network'} {reason}; only chains (nn.Sequential) of linear layers and convolutions with "
            "activations, batch norms, pools, dropout and flattening in between can be made smaller"
        )


def _weighted(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *CONVOLUTIONS))


def _needed(chain: Sequence[_Layer], outputs: list[int]) -> list[list[int]]:
    """The channels that matter to some of the chain's outputs: those of its input, then those that each part gives."""
    found = [outputs]
    for layer in reversed(chain):
        needed = found[0]
        if isinstance(layer.module, WEIGHTED):
            needed = _alive(layer.module, needed)
        elif isinstance(layer.module, nn.Flatten):
            needed = sorted({index // layer.size for index in needed})
        found.insert(0, needed)
    return found


def _alive(layer: Any, outputs: list[int]) -> list[int]:
    """The inputs with a weight other than 0 to one of the outputs, at least one."""
    alive = (layer.weight[outputs] != 0).transpose(0, 1).flatten(1).any(1)
    found: list[int] = alive.nonzero()[:, 0].tolist()
    return found or [0]


def _built(chain: Sequence[_Layer], inputs: list[int], outputs: list[int]) -> tuple[nn.Sequential, list[int]]:
    """The chain from some of its input's channels to some of its outputs, and those that it gives, which may be more."""
    after = _needed(chain, outputs)[1:]
    layers: list[nn.Module] = []
    for layer, given in zip(chain, after, strict=True):
        if isinstance(layer.module, nn.Flatten):
            inputs = [channel * layer.size + offset for channel in inputs for offset in range(layer.size)]
            layers.append(layer.module)
        elif isinstance(layer.module, WEIGHTED):
            alive = _alive(layer.module, given)
            if alive != inputs:
                layers.append(Select(torch.tensor([inputs.index(index) for index in alive])))
            layers.append(_sliced(layer.module, alive, given))
            inputs = given
        else:
            layers.append(_normed(layer.module, inputs) if isinstance(layer.module, NORMS) else layer.module)
    return nn.Sequential(*layers), inputs


def _sliced(layer: Any, inputs: list[int], outputs: list[int]) -> nn.Module:
    """A layer from some inputs to some outputs."""
    _set(layer, "weight", layer.weight[outputs][:, inputs])
    _set(layer, "bias", None if layer.bias is None else layer.bias[outputs])
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    setattr(layer, f"in_{kind}", len(inputs))
    setattr(layer, f"out_{kind}", len(outputs))
    return layer  # type: ignore[no-any-return]


def _normed(norm: Any, channels: list[int]) -> nn.Module:
    """A batch norm of some channels."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(norm, name)
        _set(norm, name, None if value is None else value[channels])
    norm.num_features = len(channels)
    return norm  # type: ignore[no-any-return]


def _set(part: nn.Module, name: str, value: Tensor | None) -> None:
    if value is not None:
        old = getattr(part, name)
        value = value.detach().clone()
        setattr(part, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and found.keys() == wanted.keys()
            and all(_equal(found[name], value) for name, value in wanted.items())
        )
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    return bool((found - wanted).abs().max() <= CLOSE * wanted.abs().max().clamp_min(1e-6))
