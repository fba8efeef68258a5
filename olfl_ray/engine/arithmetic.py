"""How products are rounded, and whether a GPU's sums have one order: float32, TF32 or bfloat16; deterministic or not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch

__all__ = ["Precision", "arithmetic", "autocast"]

# cuBLAS has no other setting for this, and whether its products are deterministic torch asks once, at the first of them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

Precision = Literal["float32", "tf32", "bf16"]
"""float32; tf32: matrix products and convolutions of a GPU in TF32; bf16: the base learner's passes in autocast."""


@contextlib.contextmanager
def arithmetic(precision: Precision, *, deterministic: bool = False) -> Iterator[None]:
    """A GPU's products in TF32 or not, and its operators deterministic or not; all is put back after.

    On a CPU neither changes anything: float32 is float32 there, and equal bits need no setting.

    Args:
        precision: tf32 allows TF32, which torch would use in convolutions and recurrent networks anyway; the others forbid it.
        deterministic: Whether operators without a deterministic kernel are refused.
    """
    cudnn: Any = torch.backends.cudnn
    debugging: Any = torch.utils.deterministic
    places: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [place.fp32_precision for place in places]
    # As a debug mode: `use_deterministic_algorithms` would import torch's compiler, for a second in each process.
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
    """Inside, a bf16 learner's products are taken in bfloat16; casts are not kept, as a captured graph must not keep them."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
