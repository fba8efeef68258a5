"""Numerics: how products are rounded (float32, TF32 or bfloat16), and whether a GPU's operators are deterministic."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch

__all__ = ["Precision", "arithmetic", "autocast"]

# cuBLAS has no other setting for this, and torch checks only once, at its first product, whether it is deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

Precision = Literal["float32", "tf32", "bf16"]
"""float32; tf32: matrix products and convolutions on a GPU in TF32; bf16: the base learner's passes in autocast."""


@contextlib.contextmanager
def arithmetic(precision: Precision, *, deterministic: bool = False) -> Iterator[None]:
    """Set TF32 and deterministic operators of a GPU inside; the previous settings are restored afterwards.

    On a CPU neither has an effect: float32 is always float32, and results are deterministic without a setting.

    Args:
        precision: tf32 allows TF32, which torch would use in convolutions and recurrent networks by default; others forbid it.
        deterministic: Whether operators without a deterministic kernel are refused.
    """
    cudnn: Any = torch.backends.cudnn
    debugging: Any = torch.utils.deterministic
    places: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [place.fp32_precision for place in places]
    # Set as a debug mode: `use_deterministic_algorithms` would import torch's compiler, which takes a second per process.
    refused, filled = torch.get_deterministic_debug_mode(), debugging.fill_uninitialized_memory
    measured = cudnn.benchmark
    for place in places:
        place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    if deterministic and torch.cuda.is_available():
        torch.set_deterministic_debug_mode("error")
        debugging.fill_uninitialized_memory = False  # it costs a pass over memory
        cudnn.benchmark = False
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
        torch.set_deterministic_debug_mode(refused)
        debugging.fill_uninitialized_memory = filled
        cudnn.benchmark = measured


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """For bf16, autocast to bfloat16; its cache of casts is off, as it must not be captured in a graph."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
