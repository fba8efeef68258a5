"""Groups of weights, one for each input channel of a layer: Omega(theta) = sum_g c_g |w_g|, c_g = sqrt(number of weights in g)."""

# O outputs, I inputs of a layer (channels of a convolution), G = I groups

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

import torch
from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = [
    "BACKBONE",
    "Sparsity",
    "group_norms",
    "group_penalty",
    "group_weight",
    "layers_of",
    "sparsity",
    "sparsity_metrics",
]

BACKBONE = "backbone."
"""Prefix of the parameters that a model of several heads shares: the layers with groups, unless patterns name others."""


def layers_of(theta: Params, patterns: Sequence[str] | None = None, field: str = "layers") -> tuple[str, ...]:
    """Names of the weights that have groups: those of a matrix or a convolution, (O, I, ...); biases have none.

    Args:
        theta: Parameters by name.
        patterns: Which of them, as in a shell: `features.*`. None: those of the backbone, if the model has one, else all.
        field: What the patterns are called in a message.

    Raises:
        SpecError: A pattern matches no such weight, or there is none.
    """
    return _layers(tuple((name, value.dim()) for name, value in theta.items()), _tuple(patterns), field)


@lru_cache(maxsize=64)
def _layers(dims: tuple[tuple[str, int], ...], patterns: tuple[str, ...] | None, field: str) -> tuple[str, ...]:
    weights = [name for name, dim in dims if dim >= 2 and "bias" not in name.rpartition(".")[2]]
    if not weights:
        raise SpecError(field, "the base learner has no weight with an input channel, so nothing can be grouped")
    if patterns is None:
        return tuple(name for name in weights if name.startswith(BACKBONE)) or tuple(weights)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise SpecError(field, f"{pattern!r} matches no weight; use a pattern for some of {', '.join(weights)}")
    return tuple(name for name in weights if any(fnmatchcase(name, pattern) for pattern in patterns))


def _tuple(patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if patterns is None else tuple(patterns)


def group_weight(weight: Tensor) -> float:
    """c_g = sqrt(number of weights in a group), the same for each group of a layer."""
    return math.sqrt(weight.numel() / max(1, weight.shape[1]))


def group_norms(weight: Tensor) -> Tensor:
    """|w_g|, the Euclidean norm of each group, of shape (G,); its derivative at 0 is set to 0.

    Args:
        weight: (O, I, ...); group i is weight[:, i].
    """
    squares = weight.square().sum([dim for dim in range(weight.dim()) if dim != 1])
    zero = squares == 0
    return torch.where(zero, torch.ones_like(squares), squares).sqrt().masked_fill(zero, 0)


def group_penalty(theta: Params, layers: Sequence[str]) -> Tensor:
    """Omega(theta) = sum_g c_g |w_g| over the groups of some layers, a scalar."""
    return torch.stack([group_weight(theta[name]) * group_norms(theta[name]).sum() for name in layers]).sum()


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """How many groups are exactly zero.

    Args:
        groups: Number of groups.
        zero_groups: Number of groups whose weights are all 0.
        weights: Number of weights in all groups.
        zero_weights: Number of weights in the zero groups.
    """

    groups: int
    zero_groups: int
    weights: int
    zero_weights: int

    @property
    def of_groups(self) -> float:
        """Fraction of the groups that is zero."""
        return self.zero_groups / self.groups

    @property
    def of_weights(self) -> float:
        """Fraction of the grouped weights that is in zero groups."""
        return self.zero_weights / self.weights


def sparsity(theta: Params, layers: Sequence[str]) -> Sparsity:
    """Count the zero groups of some layers."""
    groups = zero_groups = weights = zero_weights = 0
    for name in layers:
        weight = theta[name].detach()
        zero = int((weight == 0).transpose(0, 1).flatten(1).all(1).sum())
        groups, zero_groups = groups + weight.shape[1], zero_groups + zero
        weights, zero_weights = weights + weight.numel(), zero_weights + zero * (weight.numel() // weight.shape[1])
    return Sparsity(groups=groups, zero_groups=zero_groups, weights=weights, zero_weights=zero_weights)


def sparsity_metrics(theta: Params, layers: Sequence[str]) -> dict[str, float]:
    """Fractions of zero groups and of the weights in them, by the names of their metrics."""
    found = sparsity(theta, layers)
    return {"group_sparsity": found.of_groups, "weight_sparsity": found.of_weights}
