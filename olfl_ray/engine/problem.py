"""What is learned, as pure functions: the base learner f_theta, the learned loss M_phi, the task loss L_T."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from olfl_ray.engine.optimizers import Optimizer, Params

__all__ = ["Batch", "Problem"]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets of one batch."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The parts of one trial that do not change while it trains.

    Args:
        module: Base learner; its own parameters are never changed. In train mode.
        learned: M_phi, called with (outputs, targets); None for a baseline.
        task_loss: L_T, the meta-objective.
        base_loss: What theta is trained on when there is no learned loss (the task loss, perhaps smoothed).
        optimizer: Base optimizer.
        draws_random: Whether a forward pass draws random numbers (dropout).
    """

    module: nn.Module
    learned: nn.Module | None
    task_loss: Callable[[Tensor, Tensor], Tensor]
    base_loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    draws_random: bool

    def theta(self) -> dict[str, Tensor]:
        """The module's own trainable parameters, copied."""
        return {name: p.detach().clone() for name, p in self.module.named_parameters() if p.requires_grad}

    def buffers(self) -> dict[str, Tensor]:
        """The module's own buffers, copied."""
        return {name: value.detach().clone() for name, value in self.module.named_buffers()}

    def train_forward(self, theta: Params, buffers: Params, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """f_theta(x) in train mode, and the buffers after it."""
        updated = {name: value.clone() for name, value in buffers.items()}
        return functional_call(self.module, {**theta, **updated}, (x,)), updated

    def quiet_forward(self, theta: Params, buffers: Params, x: Tensor) -> Tensor:
        """f_theta(x) in train mode with batch statistics of its own; buffers stay as they are."""
        with _batch_norms_quiet(self.module):
            output: Tensor = functional_call(self.module, {**theta, **buffers}, (x,))
        return output

    @torch.no_grad()
    def predict(self, theta: Params, buffers: Params, x: Tensor, chunk: int = 2048) -> Tensor:
        """f_theta(x) in evaluation mode, without gradients, in chunks of rows."""
        self.module.eval()
        try:
            parts = [functional_call(self.module, {**theta, **buffers}, (part,)) for part in x.split(chunk)]
        finally:
            self.module.train()
        return torch.cat(parts)


@contextlib.contextmanager
def _batch_norms_quiet(module: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics and leave their running ones alone."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
