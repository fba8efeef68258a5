"""Which meta-gradient estimator a problem gets: what was asked for, what its operators allow, what fits in memory."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from olfl_ray.engine.batches import Batch, examples
from olfl_ray.engine.drawing import random_kept
from olfl_ray.engine.exact import exact, modes_agree
from olfl_ray.engine.finite_difference import finite_difference
from olfl_ray.engine.host import host_memory
from olfl_ray.engine.kernels import PlainKernels, plain_kernels
from olfl_ray.engine.optimizers import Params
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.reverse import reverse
from olfl_ray.engine.steps import Estimator
from olfl_ray.errors import SpecError, UserError

__all__ = ["EstimatorName", "Memory", "choose_estimator", "pick_memory"]

EstimatorName = Literal["auto", "exact", "reverse", "finite_difference"]
Memory = Literal["auto", "low", "fast"]

Way = Literal["low", "fast", "reverse", "finite_difference"]
WAYS: Mapping[Way, Estimator] = {
    "low": partial(exact, memory="low"),
    "fast": partial(exact, memory="fast"),
    "reverse": reverse,
    "finite_difference": finite_difference,
}
EXACT: tuple[Way, ...] = ("low", "fast", "reverse")
"""Those without error, from the leanest to the one that asks least of a module's operators."""
ANY_KERNELS = PlainKernels(attention=False, recurrent=False)
"""Those that a module takes by itself."""

FAST_SHARE = 0.125
"""Part of the device's memory that one replicate's activations may take in fast mode; several trials share a device."""
KEPT_TWICE = 2.5
"""Memory of a kept backward pass and its activations, in units of the activations that a forward pass saves."""

_told: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_agreeing: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_log = logging.getLogger(__name__)


def choose_estimator(
    name: EstimatorName, memory: Memory, inner_steps: int, problem: Problem, batch: Batch
) -> Estimator:
    """The estimator called `name`, tried once on two rows of `batch`, or on all of it where two are not taken.

    `auto` is exact; where this learner has no low memory it is fast, and where it has no exact, reverse; a warning says
    so once a module.

    Args:
        name: auto, exact, reverse or finite_difference.
        memory: Of exact: low, fast, or auto, which is fast where that fits.
        inner_steps: S_inner, the largest number of base steps to be unrolled.
        problem: Base learner, losses and optimizer. Without a learned loss, the learning rate is what is learned.
        batch: A train batch.

    Raises:
        SpecError: What was asked for by name can't be had for this learner; or nothing can, as the module, the losses
            and the batch do not fit each other.
    """
    if problem.learned is None:
        # One step on the task loss needs no second derivative of the module.
        return plain_kernels(problem, problem.few(batch)[0]).around(reverse) if inner_steps > 1 else reverse
    if name == "finite_difference" and problem.precision == "bf16":
        raise SpecError(
            "meta.estimator", "finite_difference drowns in the rounding of learner.precision=bf16; use auto, or float32"
        )
    rows = problem.few(batch)
    # Finite differences take first derivatives alone, which fast kernels have.
    kernels = ANY_KERNELS if name == "finite_difference" else plain_kernels(problem, rows[0])
    if name == "reverse" or name == "finite_difference":
        found, _ = _first([name], kernels, inner_steps, problem, rows)
        return kernels.around(WAYS[found])
    with kernels.inside():
        times = (examples(batch) or 1) / (examples(rows) or 1)
        wanted = pick_memory(problem, rows[0], times) if memory == "auto" else memory
    found, error = _first(EXACT[EXACT.index(wanted) :], kernels, inner_steps, problem, rows)
    if error is not None:
        reason = _said(error)
        if name == "exact" and (found == "reverse" or memory == "low"):
            raise SpecError(
                "meta.estimator", f"exact can't be had for this learner ({reason}); use auto or reverse"
            ) from error
        if problem.module not in _told:
            _told.add(problem.module)
            other = "reverse over reverse" if found == "reverse" else "exact with memory fast"
            _log.warning("meta.estimator: %s uses %s for this learner (%s)", name, other, reason)
    return kernels.around(WAYS[found])


def _first(
    ways: Sequence[Way], kernels: PlainKernels, inner_steps: int, problem: Problem, batch: Batch
) -> tuple[Way, Exception | None]:
    """The first of some ways that this learner has, and why it lacks the one before all others."""
    error: Exception | None = None
    for way in ways:
        try:
            with random_kept(problem.device), kernels.inside():
                _try(way, inner_steps, problem, batch)
        except UserError:
            raise
        except Exception as caught:  # a user's module may raise anything
            error, last = error or caught, caught
        else:
            return way, error
    raise SpecError(
        "meta.estimator",
        f"no meta-gradient can be computed: {type(last).__name__}: {_said(last)}; check that outputs, targets and losses "
        "have matching shapes and types, that their operators can be differentiated twice, and that nothing detaches the gradient",
    ) from last


def pick_memory(problem: Problem, rows: Any, times: float) -> Literal["low", "fast"]:
    """fast where a kept backward pass takes a small part of the device's memory.

    All of the memory counts, not what is free now: the two modes round differently, and a trial that goes on from its
    state must go on in the same mode.

    Args:
        problem: Base learner and its parts.
        rows: Inputs of some examples, which a pass is tried on.
        times: Examples of a whole batch, in units of those.
    """
    saved = 0
    own = {value.data_ptr() for value in problem.module.parameters()}

    def weigh(tensor: Tensor) -> Tensor:
        nonlocal saved
        if tensor.data_ptr() not in own:
            saved += tensor.numel() * tensor.element_size()
        return tensor

    theta = problem.theta()
    with random_kept(problem.device), torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
        own |= {value.data_ptr() for value in theta.values()}
        theta = {name: value.requires_grad_() for name, value in theta.items()}
        problem.train_forward(theta, problem.buffers(), rows)
    device = problem.device
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else host_memory()
    return "fast" if KEPT_TWICE * saved * times <= FAST_SHARE * total else "low"


def _try(way: Way, inner_steps: int, problem: Problem, batch: Batch) -> None:
    assert problem.learned is not None
    theta = problem.theta()
    phi: Params = {name: value.detach() for name, value in problem.learned.named_parameters()}
    state: Mapping[str, Tensor] = problem.optimizer.init(theta)
    WAYS[way](problem, theta, problem.buffers(), state, phi, 1e-3, [batch] * min(inner_steps, 2), batch)
    if way == "low" and problem.module not in _agreeing:
        if not modes_agree(problem, phi, batch):
            raise RuntimeError(
                "its forward pass cuts gradients with no_grad, or draws from a generator that is not torch's"
            )
        _agreeing.add(problem.module)


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
