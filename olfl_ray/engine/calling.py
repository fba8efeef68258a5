"""Call a module with other tensors in place of its parameters and buffers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Stateless"]

Slot = tuple[dict[str, Tensor | None], str]


class Stateless:
    """`module` as a pure function of its tensors.

    Like `torch.func.functional_call`, but with the location of each tensor looked up once: on small networks the lookup at
    every call takes longer than the network does. A tensor that is used in several modules (shared weights) has one name,
    that of its first use.

    Args:
        module: Its own tensors are restored after every call, and when `placed` ends.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._slots: dict[str, list[Slot]] = {}
        self._buffers: list[str] = []
        self._norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
        first: dict[int, str] = {}
        for prefix, part in module.named_modules():
            for held in (part._parameters, part._buffers):
                for key, tensor in held.items():
                    if tensor is None:
                        continue
                    name = first.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    if name not in self._slots and held is part._buffers:
                        self._buffers.append(name)
                    self._slots.setdefault(name, []).append((held, key))

    @property
    def device(self) -> torch.device:
        """The device of the module's first tensor; the CPU if it has none."""
        for slots in self._slots.values():
            held, key = slots[0]
            tensor = held[key]
            if tensor is not None:
                return tensor.device
        return torch.device("cpu")

    def moved_from(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of the tensors whose memory is no longer that of the module's own."""
        return [name for name, tensor in tensors.items() if not _stands(self._slots[name][0], tensor)]

    def buffers(self) -> dict[str, Tensor]:
        """The buffers that are currently in the module."""
        found = {}
        for name in self._buffers:
            held, key = self._slots[name][0]
            found[name] = held[key]
        return {name: value for name, value in found.items() if value is not None}

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside, batch norms use the batch's statistics and do not update their running ones."""
        for norm in self._norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self._norms:
                norm.track_running_stats = True

    @contextlib.contextmanager
    def placed(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, `tensors`, by name, replace the module's own."""
        own: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
        try:
            for name, tensor in tensors.items():
                for held, key in self._slots[name]:
                    own.append((held, key, held[key]))
                    held[key] = tensor
            yield
        finally:
            for held, key, tensor_of_module in own:
                held[key] = tensor_of_module


def _stands(slot: Slot, tensor: Tensor) -> bool:
    held, key = slot
    own = held.get(key)
    return own is not None and own.data_ptr() == tensor.data_ptr()
