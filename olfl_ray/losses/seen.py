"""The range of targets and outputs that a learned loss has seen: recorded at each call, and checked for one that was loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Ranges", "nothing_seen", "observe", "ranges_of", "tensor_of"]

Ranges = Mapping[str, Sequence[float]]
"""target and output -> the smallest and the largest value."""

SLACK = 0.01
"""Part of a range's width by which a value may leave it before a warning."""

LOOKS_EVERY = 64
"""Calls on a GPU between two checks of the recorded range, for which the host waits."""

_log = logging.getLogger(__name__)


def nothing_seen(*, classes: bool) -> Tensor:
    """(smallest target, -largest target, smallest output, -largest output), of nothing: one `minimum` extends them.

    Args:
        classes: Whether targets are classes, one-hot: 0 and 1, which need not be checked.
    """
    return torch.tensor([0.0, -1.0, math.inf, math.inf] if classes else [math.inf] * 4)


def tensor_of(ranges: Any) -> Tensor:
    """The tensor of some ranges.

    Raises:
        ValueError: They are not two pairs of finite numbers.
    """
    pairs = [list(map(float, ranges[name])) for name in ("target", "output")]
    if any(len(pair) != 2 or not all(map(math.isfinite, pair)) or pair[0] > pair[1] for pair in pairs):
        raise ValueError("its range of targets and outputs is not two pairs of numbers")
    return torch.tensor([pairs[0][0], -pairs[0][1], pairs[1][0], -pairs[1][1]])


def ranges_of(seen: Tensor | None) -> Ranges | None:
    """The ranges of a tensor; None where nothing was seen, or something that is not finite."""
    if seen is None or not bool(seen.isfinite().all()):
        return None
    a, b, c, d = seen.tolist()
    return {"target": [a, -b], "output": [c, -d]}


@torch.no_grad()
def observe(loss: Any, output: Tensor, target: Tensor) -> None:
    """Extend what a loss has seen, `loss.seen`, and warn once where it leaves `loss.limits`. Nothing is computed in transforms.

    Args:
        loss: With tensors `seen` and, of a loaded one, `limits`.
        output: What goes into the loss network.
        target: The same.
    """
    if not output.numel() or output.is_meta or torch._C._functorch.peek_interpreter_stack() is not None:
        return
    if torch.compiler.is_compiling() or forward_ad.unpack_dual(output).tangent is not None:
        return
    if loss.seen.device != output.device:
        loss.seen = loss.seen.to(output.device)
    low, high = torch.aminmax(output.detach())
    ends = [(2, low), (3, -high)]
    if not loss.task.classes:  # the targets of classes are 0 and 1
        first, last = torch.aminmax(target.detach())
        ends = [(0, first), (1, -last), *ends]
    if output.is_cuda:
        now = torch.stack([value.to(loss.seen.dtype) for _, value in ends])
        own = loss.seen[-len(ends) :]
        torch.minimum(own, now, out=own)
        loss.calls += 1
        looks = loss.limits is not None and loss.calls % LOOKS_EVERY == 0 and _may_look()
    else:  # reading a value is cheaper than an operator
        own = loss.seen.tolist()
        wider = [(at, value.item()) for at, value in ends if value.item() < own[at]]
        for at, value in wider:
            loss.seen[at] = value
        looks = loss.limits is not None and bool(wider)
    if looks:
        _check(loss)


def _may_look() -> bool:
    """Whether a value of the GPU may be read: no graph is captured, nor about to be."""
    return not torch.cuda.is_current_stream_capturing() and torch.cuda.get_sync_debug_mode() == 0


def _check(loss: Any) -> None:
    limits, seen = loss.limits.tolist(), loss.seen.tolist()
    for start, name in ((2, "outputs"), (0, "targets")):
        (low, high), (least, most) = _pair(limits, start), _pair(seen, start)
        slack = SLACK * (high - low)
        if least < low - slack or most > high + slack:
            loss.limits = None
            _log.warning(
                "this learned loss has seen %s from %.4g to %.4g, but is called with %.4g to %.4g, where nothing trained it; "
                "scale them as in its training, or continue to learn it",
                name,
                low,
                high,
                least,
                most,
            )
            return


def _pair(values: Sequence[float], start: int) -> tuple[float, float]:
    return values[start], -values[start + 1]
