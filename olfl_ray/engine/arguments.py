"""Validation of what a training loop passes to the engine, before anything changes: one message per argument."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from olfl_ray.engine.batches import Batch, examples, tensors
from olfl_ray.errors import SpecError

__all__ = [
    "check_batch",
    "check_batches",
    "check_count",
    "check_name",
    "check_parts",
    "check_rate",
    "check_state",
    "each_batch",
]


def check_name(field: str, value: str, allowed: Sequence[str]) -> None:
    """Check that a name is one of those allowed."""
    if value not in allowed:
        raise SpecError(field, f"is {value!r}, but must be one of {', '.join(allowed)}")


def check_rate(field: str, value: Any, *, positive: bool = False) -> None:
    """Check for a finite number, at least 0 or above it."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise SpecError(field, f"is {value!r}, but must be a finite number {'above' if positive else 'of at least'} 0")


def check_count(field: str, value: Any) -> None:
    """Check for an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise SpecError(field, f"is {value!r}, but must be a whole number of at least 1")


def check_parts(module: Any, learned: Any, task_loss: Any) -> None:
    """Check base learner, learned loss and task loss: the first two need trainable parameters, separate from each other."""
    for field, part in (("module", module), ("learned_loss", learned)):
        if not isinstance(part, nn.Module):
            raise SpecError(
                field, f"is {_kind(part)}, but must be an nn.Module, whose parameters are learned; wrap it in one"
            )
        lazy = [name for name, value in part.named_parameters() if is_lazy(value)]
        if lazy:
            raise SpecError(field, f"has parameters without a shape ({lazy[0]}); call it once on a batch first")
        if not any(value.requires_grad for value in part.parameters()):
            raise SpecError(
                field, "has no parameters that require a gradient, so nothing of it can be learned; give it some"
            )
    own = {id(value) for value in module.parameters() if value.requires_grad}
    both = [name for name, value in learned.named_parameters() if id(value) in own and value.requires_grad]
    if both:
        raise SpecError(
            "learned_loss",
            f"holds trainable parameters of the module ({both[0]}), which can't move in both; a loss that reads the "
            "module keeps it out of its submodules, in a list or a function",
        )
    here, there = _devices(module), _devices(learned)
    if not there <= here:
        raise SpecError("learned_loss", f"is on {_names(there)}, but the module is on {_names(here)}; move it there")
    if not callable(task_loss):
        raise SpecError("task_loss", f"is {_kind(task_loss)}, but must be called with (outputs, targets)")


def check_batch(field: str, batch: Any, module: nn.Module) -> None:
    """Check inputs and targets: not empty, and on the module's device."""
    if not _is_pair(batch):
        raise SpecError(
            field, f"is {_kind(batch)}, but must be a pair (inputs, targets), each a tensor or a tree of tensors"
        )
    for part in batch:
        if examples(part) == 0:
            raise SpecError(field, "has no examples; leave it out")
    elsewhere = {value.device for part in batch for value in tensors(part) if value.dim()} - _devices(module)
    if elsewhere:
        raise SpecError(
            field, f"is on {_names(elsewhere)}, but the module is on {_names(_devices(module))}; move it there"
        )


def check_batches(field: str, batches: Any, module: nn.Module) -> None:
    """Check a list of batches."""
    if not isinstance(batches, (list, tuple)) or not batches:
        raise SpecError(field, f"is {_kind(batches)}, but must be a list of batches (inputs, targets), one or more")
    for batch in batches:
        check_batch(field, batch, module)


def each_batch(train: Any) -> list[Batch]:
    """The batches of `train`: a tuple is one batch, a list has one batch per base step.

    A list of two that are not both pairs themselves, as data loaders return, is one batch as well.
    """
    if isinstance(train, tuple):
        return [train]
    if isinstance(train, list) and train:
        if len(train) == 2 and not all(map(_is_pair, train)):
            return [(train[0], train[1])]
        for index, batch in enumerate(train):
            if not _is_pair(batch):
                raise SpecError("train", f"has {_kind(batch)} at {index}, but must hold pairs (inputs, targets)")
        return train
    if isinstance(train, list):
        raise SpecError("train", "is empty, but must hold one batch a base step")
    also = "; give list(train)" if isinstance(train, Iterator) else ""
    raise SpecError("train", f"is {_kind(train)}, but must be a tuple (inputs, targets) or a list of such{also}")


def check_state(field: str, given: Any, own: Mapping[str, Any]) -> None:
    """Check that a state has the same names, shapes and dtypes."""
    if not isinstance(given, Mapping):
        raise SpecError(field, f"is {_kind(given)}, but must be a dict of tensors")
    if given.keys() != own.keys():
        names = ", ".join(sorted(map(str, given.keys() ^ own.keys()))[:3])
        raise SpecError(
            field,
            f"has a state of other tensors than here ({names}); use the optimizer and the parameters that it was made with",
        )
    for name, value in own.items():
        other = given[name]
        if not isinstance(value, Tensor):  # a module's extra state
            continue
        if not isinstance(other, Tensor):
            raise SpecError(field, f"has {_kind(other)} as {name}, but must hold tensors")
        if other.shape != value.shape or other.dtype != value.dtype:
            raise SpecError(
                field,
                f"has {name} of shape {tuple(other.shape)} and {other.dtype}, but here it is {tuple(value.shape)} and "
                f"{value.dtype}; build the module and the loss as they were",
            )


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _devices(module: nn.Module) -> set[torch.device]:
    return {value.device for value in (*module.parameters(), *module.buffers())}


def _names(devices: set[torch.device]) -> str:
    return " and ".join(sorted(map(str, devices)))


def _kind(value: Any) -> str:
    """A description such as `a tuple of 3`."""
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, (tuple, list)) else f"a {name}"
