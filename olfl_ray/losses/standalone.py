"""A learned loss as one Python file that needs torch alone: its network, its weights, and what it was learned on."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from olfl_ray.errors import DataError
from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.learned_loss import LearnedLoss
from olfl_ray.losses.network import LossNetwork
from olfl_ray.losses.seen import SLACK, ranges_of

__all__ = ["standalone"]

PAIRS = {
    "classification": "torch.softmax(outputs, -1), F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)",
    "regression": "outputs, targets",
}
"""Name of a task -> what goes into the loss network, outputs first."""

FILE = '''\
"""A learned loss M_phi(outputs, targets); needs torch alone. Written by olfl_ray.

{head}
"""

import base64
import warnings

import torch
from torch import nn
from torch.nn import functional as F

SEEN = {seen!r}
WEIGHTS = """
{weights}
"""


class Activation(nn.Module):
    def forward(self, z):
        return {activation}


class LearnedLoss(nn.Module):
    """Called with raw outputs (B, C) and {targets}; gives a scalar. Its parameters are phi, and may be learned on."""

    def __init__(self):
        super().__init__()
        sizes = {sizes!r}
        layers = []
        for inputs, outputs in zip(sizes, sizes[1:]):
            layers += [nn.Linear(inputs, outputs, bias={bias!r}), Activation()]
        self.layers = nn.Sequential(*layers[:-1]{last})
        values = torch.frombuffer(bytearray(base64.b64decode(WEIGHTS)), dtype=torch.float32)
        nn.utils.vector_to_parameters(values, self.parameters())
        for value in self.parameters():
            value.data = value.data.clone()
        self.warned = SEEN is None

    def forward(self, outputs, targets):
        output, target = {pairs}
        if not (self.warned or torch.compiler.is_compiling()):
            self.warn(output.detach(), target.detach())
        value = self.layers(torch.stack((target.reshape(-1), output.reshape(-1)), dim=1)).reshape(output.shape)
        return value.{reduction}(-1).mean()

    def warn(self, output, target):
        for name, value in (("output", output), ("target", target)):
            (low, high), least, most = SEEN[name], value.min().item(), value.max().item()
            if least < low - {slack} * (high - low) or most > high + {slack} * (high - low):
                self.warned = True
                warnings.warn(f"this learned loss has seen {{name}}s from {{low:.4g}} to {{high:.4g}}, but is called with "
                              f"{{least:.4g}} to {{most:.4g}}, where nothing trained it", stacklevel=3)
                return
'''


def standalone(loss: LearnedLoss, notes: Sequence[str] = ()) -> str:
    """The text of the file; its `LearnedLoss()` gives what `loss` gives.

    Args:
        loss: A learned loss of a built-in network, of classification or regression.
        notes: Lines of the file's head, such as what it was learned on.

    Raises:
        DataError: Its network or its task is a user's own code.
    """
    network: Any = loss.network
    plain = isinstance(network, LossNetwork) and type(network).forward is LossNetwork.forward and network.closed
    if not plain or loss.kind not in PAIRS:
        raise DataError(
            "standalone: only a loss of a built-in network (mlp, ml3), for classification or regression, can be written as "
            "one file; keep its module and read it with load_loss"
        )
    layers = list(network.layers)
    linear, activation = layers[::2], layers[1]
    weights = [value.detach().cpu().float().flatten() for value in network.parameters()]
    seen = ranges_of(loss.seen)
    shown = (
        f"It has seen {_words(seen)}."
        if seen is not None
        else "The range of targets and outputs that it has seen is unknown."
    )
    lines = [line for note in (*notes, shown) for line in textwrap.wrap(_plain(note), 100)]
    sizes = [2, *(layer.out_features for layer in linear)]
    return FILE.format(
        head="\n".join(lines),
        seen=None if seen is None else {name: tuple(pair) for name, pair in seen.items()},
        weights="\n".join(textwrap.wrap(base64.b64encode(_bytes(torch.cat(weights))).decode(), 100)),
        activation=_formula(activation),
        targets="class indices (B,)" if loss.task.classes else "targets (B, C), scaled as in training",
        sizes=sizes,
        bias=linear[0].bias is not None,
        last=", nn.Softplus()" if len(layers) % 2 == 0 else "",
        pairs=PAIRS[loss.kind],
        reduction=loss.reduction,
        slack=SLACK,
    )


def _formula(activation: Any) -> str:
    if isinstance(activation, SmoothLeakyReLU):
        beta, gamma = activation.beta, activation.gamma
        return f"F.leaky_relu(z, {gamma!r}) + {(1 - gamma) / beta!r} * torch.log(1 + torch.exp(-{beta!r} * z.abs()))"
    return {"ReLU": "F.relu(z)", "Softplus": "F.softplus(z)", "Tanh": "torch.tanh(z)"}[type(activation).__name__]


def _words(seen: Any) -> str:
    return " and ".join(f"{name}s from {pair[0]:.4g} to {pair[1]:.4g}" for name, pair in seen.items())


def _plain(text: str) -> str:
    """In a docstring nothing may end it, nor be an escape."""
    return text.replace("\\", "/").replace('"""', "'''")


def _bytes(values: Tensor) -> bytes:
    return values.numpy().tobytes()
