"""Kernels that can be differentiated twice, in place of a module's faster ones that can't."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import Estimator

__all__ = ["PlainKernels", "plain_kernels"]

ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}
"""torch functions that may use fused attention; the plain kernel consists of ordinary products."""


@dataclass(frozen=True, kw_only=True)
class PlainKernels:
    """Replaces fused attention and cuDNN's recurrent networks, which have only a first derivative, by plain kernels.

    Args:
        attention: Whether the module or the learned loss uses fused attention.
        recurrent: Whether one of them has a recurrent network that cuDNN would run.
    """

    attention: bool
    recurrent: bool

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, passes use the plain kernels."""
        cudnn: Any = torch.backends.cudnn
        enabled = cudnn.enabled
        with sdpa_kernel(SDPBackend.MATH) if self.attention else contextlib.nullcontext():
            cudnn.enabled = enabled and not self.recurrent
            try:
                yield
            finally:
                cudnn.enabled = enabled

    def around(self, estimator: Estimator) -> Estimator:
        """The estimator with the plain kernels; the estimator itself if the module needs none."""
        if not (self.attention or self.recurrent):
            return estimator
        inside: Estimator = self.inside()(estimator)
        return inside


def plain_kernels(problem: Problem, batch: Batch) -> PlainKernels:
    """The plain kernels that the base learner and the learned loss need on their device, found by a pass on a batch."""
    # If the pass fails, the estimators report why.
    with problem.unchanged(), _Seen() as seen, contextlib.suppress(Exception):
        problem.base_loss_of(batch)
    parts = [*problem.module.modules(), *problem.learned.modules()]
    recurrent = problem.device.type == "cuda" and any(isinstance(part, nn.RNNBase) for part in parts)
    return PlainKernels(attention=seen.fused, recurrent=recurrent)


class _Seen(TorchFunctionMode):
    """Records whether a function inside may be fused attention. (A dispatch mode would import torch's compiler.)"""

    def __init__(self) -> None:
        super().__init__()
        self.fused = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.fused = self.fused or getattr(func, "__name__", "") in ATTENTION
        return func(*args, **(kwargs or {}))
