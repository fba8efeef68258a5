"""Which meta-gradient estimator a problem gets: what was asked for, what its operators allow, what fits in memory."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from olfl_ray.engine.exact import exact
from olfl_ray.engine.finite_difference import finite_difference
from olfl_ray.engine.optimizers import Params
from olfl_ray.engine.problem import Batch, Problem
from olfl_ray.engine.reverse import reverse
from olfl_ray.engine.steps import Estimator
from olfl_ray.errors import SpecError

__all__ = ["EstimatorName", "Memory", "choose_estimator", "pick_memory"]

EstimatorName = Literal["auto", "exact", "reverse", "finite_difference"]
Memory = Literal["auto", "low", "fast"]

FAST_SHARE = 0.125
"""Part of the device's memory that one replicate's activations may take in fast mode; several trials share a device."""
KEPT_TWICE = 2.5
"""Memory of a kept backward pass and its activations, in units of the activations that a forward pass saves."""

_told: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_log = logging.getLogger(__name__)


def choose_estimator(
    name: EstimatorName, memory: Memory, inner_steps: int, problem: Problem, batch: Batch
) -> Estimator:
    """The estimator called `name`, tried once on two rows of `batch`.

    `auto` is exact; where an operator lacks the derivative that exact needs, it is reverse, and a warning says so once
    a module.

    Args:
        name: auto, exact, reverse or finite_difference.
        memory: Of exact: low, fast, or auto, which is fast where that fits.
        inner_steps: S_inner, the largest number of base steps to be unrolled.
        problem: Base learner, losses and optimizer.
        batch: A train batch.

    Raises:
        SpecError: exact was asked for by name and an operator lacks the derivative that it needs; or finite_difference
            in bf16.
    """
    if name == "reverse" or problem.learned is None:
        return reverse
    if name == "finite_difference":
        if problem.precision == "bf16":
            raise SpecError(
                "meta.estimator",
                "finite_difference drowns in the rounding of learner.precision=bf16; use auto, or float32",
            )
        return finite_difference
    chosen = partial(exact, memory=pick_memory(problem, batch[0]) if memory == "auto" else memory)
    try:
        _try(chosen, inner_steps, problem, batch)
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if name == "exact":
            raise SpecError(
                "meta.estimator", f"exact can't be had for this learner ({reason}); use auto or reverse"
            ) from error
        if problem.module not in _told:
            _told.add(problem.module)
            _log.warning("meta.estimator: auto uses reverse over reverse for this learner (%s)", reason)
        return reverse
    return chosen


def pick_memory(problem: Problem, x: Tensor) -> Literal["low", "fast"]:
    """fast where a kept backward pass takes a small part of the device's memory.

    All of the memory counts, not what is free now: the two modes round differently, and a trial that goes on from its
    state must go on in the same mode.
    """
    saved = 0
    own = {value.data_ptr() for value in problem.module.parameters()}

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        if tensor.data_ptr() not in own:
            saved += tensor.numel() * tensor.element_size()
        return tensor

    rows = x[:2]
    theta = problem.theta()
    with _random_kept(x), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        own |= {value.data_ptr() for value in theta.values()}
        theta = {name: value.requires_grad_() for name, value in theta.items()}
        problem.train_forward(theta, problem.buffers(), rows)
    if x.is_cuda:
        total = torch.cuda.get_device_properties(x.device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "fast" if KEPT_TWICE * saved * len(x) / len(rows) <= FAST_SHARE * total else "low"


def _try(estimator: Estimator, inner_steps: int, problem: Problem, batch: Batch) -> None:
    assert problem.learned is not None
    few: Batch = batch[0][:2], batch[1][:2]
    theta = problem.theta()
    phi: Params = {name: value.detach() for name, value in problem.learned.named_parameters()}
    state: Mapping[str, Tensor] = problem.optimizer.init(theta)
    with _random_kept(batch[0]):
        estimator(problem, theta, problem.buffers(), state, phi, 1e-3, [few] * min(inner_steps, 2), few)


def _random_kept(x: Tensor) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[x.device.index or 0] if x.is_cuda else [])
