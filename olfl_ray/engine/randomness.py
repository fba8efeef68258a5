"""Random state of one replicate: the CPU's generator and, for a trial on a GPU, the GPU's; one tensor of bytes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RandomState", "fresh_random"]


def fresh_random(seed: int, device: torch.device) -> Tensor:
    """The state before a replicate's first draw, as bytes: the CPU's generator, followed by the GPU's."""
    generators = [torch.Generator(), *([torch.Generator(device)] if device.type == "cuda" else [])]
    return torch.cat([generator.manual_seed(seed).get_state() for generator in generators])


class RandomState:
    """Sets the global random state to a replicate's own, and restores it afterwards.

    A state that was created without a GPU has no part for one: the GPU's generator is then left unchanged.

    Args:
        state: Bytes of `fresh_random` or of `after`.
        device: Where the replicate is.
    """

    def __init__(self, state: Tensor, device: torch.device) -> None:
        self._own, self._device, self.after = state, device, state

    def __enter__(self) -> RandomState:
        self._outer = _now(self._device)
        _set(self._own, self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self.after = _now(self._device)
        _set(self._outer, self._device)


def _now(device: torch.device) -> Tensor:
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return torch.cat(states)


def _set(state: Tensor, device: torch.device) -> None:
    of_cpu = len(torch.get_rng_state())
    torch.set_rng_state(state[:of_cpu].clone())
    if device.type == "cuda" and len(state) > of_cpu:
        torch.cuda.set_rng_state(state[of_cpu:].clone(), device)
