"""Where losses are compared: pairs of targets and outputs in the seen range, and each loss's gradient in the raw outputs there."""

# N examples, C outputs

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from olfl_ray.errors import DataError
from olfl_ray.losses import LearnedLoss
from olfl_ray.tasks import task_of

__all__ = ["Array", "Reference", "Slope", "pair_values", "ranges_seen", "reference_of", "slope_of"]

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Slope: TypeAlias = Callable[[Array, Array], Array]
"""(target, output) -> d l / d output, elementwise."""

EDGE = 1e-6
"""Probabilities are compared from this to 1 less this."""
PLAIN = {"classification": [0.0, 1.0], "regression": [-3.0, 3.0]}
"""Outputs of a loss that does not know what it has seen."""
LEVELS, DRAWS, PAIRS = 101, 5, 200_000
"""Target probabilities; for each the draws of the other classes, fewer where there would be more pairs in all."""
TARGETS = 21
"""Targets of a regression."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The examples on which gradients are compared, all with the same weight.

    A loss of a classification is a function of probabilities, which the softmax couples: with l'_i its slope in p_i, the
    gradient in the logits is p_k (l'_k - sum_i p_i l'_i). A number that is added to every l' has no gradient. So losses are
    compared in the logits. A regression's raw outputs are what the loss is a function of.

    Args:
        kind: classification or regression.
        target_NC: y, one-hot in a classification.
        output_NC: What goes into the loss: probabilities in a classification.
        seen: target and output -> the smallest and the largest value.
        known: Whether the loss has recorded this range; else it is a default.
    """

    kind: str
    target_NC: Array
    output_NC: Array
    seen: Mapping[str, Sequence[float]]
    known: bool

    @property
    def classes(self) -> bool:
        """Whether its targets are classes."""
        return task_of(self.kind, "learned_loss").classes

    @property
    def outputs(self) -> int:
        """C."""
        return int(self.output_NC.shape[1])

    def gradient(self, slope: Slope) -> Array:
        """The gradient of the sum of a loss over the outputs, in the raw outputs (N, C)."""
        slope_NC = slope(self.target_NC, self.output_NC)
        if not self.classes:
            return slope_NC
        mean_N1 = (self.output_NC * slope_NC).sum(1, keepdims=True)
        gradient: Array = self.output_NC * (slope_NC - mean_N1)
        return gradient

    @cached_property
    def task_gradient(self) -> Array:
        """That of the cross-entropy, or of the squared error."""
        return self.gradient(lambda y, f: -y / f if self.classes else 2 * (f - y))

    @property
    def wording(self) -> str:
        """What the examples are, in words."""
        low, high = (round(end, 6) for end in self.seen["output"])
        note = "seen in training" if self.known else "by default; the loss has recorded no range"
        if self.classes:
            spread = "" if self.outputs == 2 else ", the rest spread over the other classes, at random or evenly"
            return (
                f"{self.outputs} classes; the target's probability uniform from {low:.3g} to {high:.3g} ({note}){spread}; "
                "gradients in the logits"
            )
        first, last = self.seen["target"]
        return (
            f"targets uniform from {first:.3g} to {last:.3g} and outputs uniform from {low:.3g} to {high:.3g} ({note}); "
            "gradients in the outputs"
        )


def ranges_seen(loss: LearnedLoss) -> tuple[dict[str, list[float]], bool]:
    """The ranges of targets and outputs that a loss has seen, or defaults; and whether it has recorded them."""
    from olfl_ray.losses.seen import ranges_of

    found = ranges_of(loss.seen)
    if found is not None and found["output"][0] < found["output"][1]:
        return {name: list(pair) for name, pair in found.items()}, True
    plain = PLAIN[loss.kind]
    return {"target": plain, "output": plain}, False


def reference_of(kind: str, seen: Mapping[str, Sequence[float]], *, classes: int = 2, known: bool = True) -> Reference:
    """The examples for a task and a range.

    Args:
        kind: classification or regression.
        seen: target and output -> the smallest and the largest value.
        classes: C of a classification.
        known: As of `Reference`.

    Raises:
        DataError: Fewer than two classes.
    """
    if kind != "classification":
        levels, line = _middles(seen["target"], TARGETS), _middles(seen["output"], LEVELS)
        grid = np.array([(y, f) for y in levels for f in line])
        return Reference(kind=kind, target_NC=grid[:, :1], output_NC=grid[:, 1:], seen=seen, known=known)
    if classes < 2:
        raise DataError(f"classes: is {classes}, but a classification has at least 2; give their number")
    low, high = max(seen["output"][0], EDGE), min(seen["output"][1], 1 - EDGE)
    draws = 1 if classes == 2 else max(1, min(DRAWS, PAIRS // (LEVELS * classes)))
    p_N = np.repeat(_middles((low, high), LEVELS), draws)
    shares = np.random.default_rng(0).dirichlet(np.ones(classes - 1), len(p_N))  # uniform on the simplex
    shares[::draws] = 1 / (classes - 1)
    output_NC = np.concatenate([p_N[:, None], (1 - p_N)[:, None] * shares], axis=1)
    output_NC = np.maximum(output_NC, np.finfo(float).tiny)
    target_NC = np.zeros_like(output_NC)
    target_NC[:, 0] = 1  # l_phi does not know which output it is given
    return Reference(kind=kind, target_NC=target_NC, output_NC=output_NC, seen=seen, known=known)


def _middles(ends: Sequence[float], count: int) -> Array:
    edges = np.linspace(ends[0], ends[1], count + 1)
    middles: Array = (edges[1:] + edges[:-1]) / 2
    return middles


def pair_values(network: nn.Module) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A loss network in float64: (target, output) -> l and d l / d output, of any shape.

    Args:
        network: Called with (output, target); it is copied.
    """
    own = copy.deepcopy(network).to("cpu", torch.float64)

    @torch.enable_grad()
    def both(target: Array, output: Array) -> tuple[Array, Array]:
        given = torch.tensor(output, dtype=torch.float64).requires_grad_()
        value = own(given, torch.tensor(target, dtype=torch.float64))
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), given, allow_unused=True)
        slopes = np.zeros(given.shape) if slope is None else slope.numpy()
        return value.detach().numpy(), slopes

    return both


def slope_of(network: nn.Module) -> Slope:
    """d l / d output of a loss network, in float64."""
    both = pair_values(network)
    return lambda target, output: both(target, output)[1]
