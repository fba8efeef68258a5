"""A trained model without the channels that its weights ignore, and how much faster that makes it."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from statistics import median

import torch

from olfl_ray.models.pruning import pruned
from olfl_ray.trial.model import TrainedModel

__all__ = ["Speed", "pruned_model", "speed"]

EXAMPLES = 8
"""Inputs on which the outputs of both are compared."""


def pruned_model(model: TrainedModel) -> TrainedModel:
    """The same model with a smaller base learner; the outputs are the same up to rounding.

    Args:
        model: A model whose base learner is a chain of layers, or a backbone with heads that are chains.

    Raises:
        DataError: The base learner has another form, which the message names.
    """
    small = copy.copy(model)
    small._modules = dict(model._modules)
    small.module = pruned(model.module, model.scaler(model.example(EXAMPLES)))
    small.origin = replace(model.origin, pruned=True)
    return small.eval()


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Two models on the same inputs.

    Args:
        examples: Inputs of one call.
        dense_ms: Time of a call of the first, in milliseconds; median over the calls.
        pruned_ms: That of the second.
        dense_weights: Parameters of the first.
        pruned_weights: Parameters of the second.
        threads: Threads of this process.
        device: Where both are.
    """

    examples: int
    dense_ms: float
    pruned_ms: float
    dense_weights: int
    pruned_weights: int
    threads: int
    device: str

    @property
    def factor(self) -> float:
        """How many times as fast the second is."""
        return self.dense_ms / self.pruned_ms

    def __str__(self) -> str:
        return (
            f"{self.pruned_weights:,} of {self.dense_weights:,} weights; {self.factor:.2f} times as fast "
            f"({self.pruned_ms:.3g} ms instead of {self.dense_ms:.3g} ms for {self.examples} examples; {self.device}, "
            f"{self.threads} threads)"
        )


@torch.inference_mode()
def speed(dense: TrainedModel, small: TrainedModel, *, examples: int = 256, seconds: float = 1.0) -> Speed:
    """Time two models in turn on the same inputs, so that other load slows both.

    Subnormal weights count as 0: a channel that nothing reads is left with some, and a CPU multiplies by them many times slower, so
    removing them would look like a gain of pruning.

    Args:
        dense: The first.
        small: The second, on the same device.
        examples: Inputs of one call.
        seconds: For about how long, in seconds.
    """
    x = dense.example(examples)
    dense, small = _normal(dense), _normal(small)
    took: tuple[list[float], list[float]] = ([], [])
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took[0]) < 5:
        for model, own in zip((dense, small), took, strict=True):
            began = time.perf_counter()
            model(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            own.append(1e3 * (time.perf_counter() - began))
    first, second = (median(own[2:]) for own in took)  # without the first calls, which allocate
    weights = [sum(value.numel() for value in model.module.parameters()) for model in (dense, small)]
    return Speed(
        examples=examples,
        dense_ms=first,
        pruned_ms=second,
        dense_weights=weights[0],
        pruned_weights=weights[1],
        threads=torch.get_num_threads(),
        device=x.device.type,
    )


def _normal(model: TrainedModel) -> TrainedModel:
    """A copy without subnormal weights."""
    found = copy.deepcopy(model)
    for value in found.parameters():
        value[value.abs() < torch.finfo(value.dtype).tiny] = 0
    return found
