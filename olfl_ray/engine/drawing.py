"""Random generators that a forward pass may use: their states are saved and restored; torch's on each device, and Python's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["RandomStates", "drawn", "random_kept", "random_states", "set_random_states"]

RandomStates = tuple[Tensor, Tensor | None, Any]
"""States of torch's generator on the CPU, of that on the GPU, and of Python's own; None: not saved."""


def random_states(device: torch.device, *, python: bool = True) -> RandomStates:
    """The current states.

    Args:
        device: Device of the pass; a pass on a GPU may draw on the CPU as well, for example which layers to drop.
        python: Whether to save Python's own generator, which takes ten times as long as the others.
    """
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), gpu, random.getstate() if python else None


def set_random_states(states: RandomStates, device: torch.device) -> None:
    """Restore saved states."""
    cpu, gpu, python = states
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu, device)
    if python is not None:
        random.setstate(python)


@contextlib.contextmanager
def random_kept(device: torch.device) -> Iterator[None]:
    """Draws inside do not change the generators."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states, device)


def drawn(run: Callable[[], object], device: torch.device) -> tuple[bool, bool]:
    """Whether `run` draws random numbers at all, and whether from Python's own generator; their states are restored."""
    with random_kept(device):
        before = random_states(device)
        run()
        after = random_states(device)
    of_torch, of_python = not torch.equal(_bytes(before), _bytes(after)), before[2] != after[2]
    return of_torch or of_python, of_python


def _bytes(states: RandomStates) -> Tensor:
    return torch.cat([state for state in states[:2] if state is not None])
