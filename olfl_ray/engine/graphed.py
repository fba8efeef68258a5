"""A step over tensors at fixed addresses; on a GPU it is captured once and replayed as a CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from olfl_ray.engine.drawing import random_kept
from olfl_ray.engine.state import LearnerState
from olfl_ray.engine.steps import Metrics

__all__ = ["Graphed", "Step", "clone_state", "copy_state"]

Step = Callable[[LearnerState, Sequence[Any]], tuple[LearnerState, Metrics]]
"""From a state and its inputs (tensors, and numbers, which may be scalar tensors) to the next state; pure, and without
reading a value on the host."""

WARM_UP = 3
"""Number of steps before a capture, in which libraries create their handles and choose their kernels."""

_told: set[str] = set()
_log = logging.getLogger(__name__)


@functools.cache
def _aside(device: torch.device) -> tuple[torch.cuda.Stream, Any, torch.cuda.CUDAGraph]:
    """The stream and the memory pool of all captures on a device, which share libraries' workspaces and free blocks.

    The third is an empty graph: a pool without graphs is freed, and its handle can't be used again.
    """
    with torch.cuda.device(device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The CUDA Graph is empty")
        stream, pool, empty = torch.cuda.Stream(), torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(empty, pool=pool, stream=stream, capture_error_mode="thread_local"):
            pass
    return stream, pool, empty


class Graphed:
    """`step` with its state in place.

    A captured step has its inputs and metrics at fixed addresses too, so that a call is a few copies and one launch. If the
    capture fails (for example because a user's module reads a value on the host), a warning gives the reason, once per
    reason, and the same code runs operator by operator; so does a batch of another shape. During the first call no other
    thread may copy to or from the GPU, or wait for it. All graphs of a process share their working memory, so no two may
    run at the same time on different streams.

    Args:
        step: The step to repeat.
        state: Updated in place by each call; several `Graphed` may share one.
        capture: Whether to capture at the first call; needs a GPU.
    """

    def __init__(self, step: Step, state: LearnerState, *, capture: bool) -> None:
        self._step, self.state, self._wanted = step, state, capture
        some = next(tensor for _, part in _parts(state) for tensor in part.values())
        self._device, self._dtype = some.device, some.dtype
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._names: list[str] = []
        self._measured = torch.empty(())

    @property
    def captured(self) -> bool:
        """Whether a graph is replayed."""
        return self._graph is not None

    def __call__(self, inputs: Sequence[Tensor | float]) -> Metrics:
        """One step.

        Args:
            inputs: The step's inputs, with the same shapes each time; a captured number is a scalar on the state's device.

        Returns:
            Scalars on the device, which later steps do not change.
        """
        if self._wanted:
            self._wanted = False
            self._capture(inputs)
        if self._graph is None or not all(map(_fits, self._inputs, inputs)):
            return self.uncaptured(inputs)
        for own, value in zip(self._inputs, inputs, strict=True):
            if isinstance(value, Tensor):
                own.copy_(value)
            else:
                own.fill_(value)
        with torch.cuda.device(self._device):
            self._graph.replay()
        return dict(zip(self._names, self._measured.clone().unbind(), strict=True))

    def uncaptured(self, inputs: Sequence[Any]) -> Metrics:
        """One step operator by operator, even if there is a graph."""
        new, metrics = self._step(self.state, inputs)
        copy_state(new, self.state)
        return metrics

    def _capture(self, inputs: Sequence[Tensor | float]) -> None:
        """Capture the step after warm-up steps. The state and the random state are restored; a capture runs nothing."""
        before = clone_state(self.state)
        dtype = torch.promote_types(self._dtype, torch.float32)
        self._inputs = [
            value.clone()
            if isinstance(value, Tensor)
            else torch.full((), float(value), dtype=dtype, device=self._device)
            for value in inputs
        ]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            (aside, pool, _), here = _aside(self._device), torch.cuda.current_stream()
            try:
                with random_kept(self._device):
                    aside.wait_stream(here)
                    with torch.cuda.stream(aside):
                        for _ in range(WARM_UP - 1):
                            self.uncaptured(self._inputs)
                        with _waits_refused():
                            self.uncaptured(self._inputs)
                    here.wait_stream(aside)
                    copy_state(before, self.state)
                    with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                        metrics = self.uncaptured(self._inputs)
                        self._names, self._measured = list(metrics), torch.stack(list(metrics.values()))
            except RuntimeError as error:
                torch.cuda.set_stream(here)  # a capture that fails at its end does not restore the thread's stream
                torch.cuda.synchronize()
                try:
                    with random_kept(self._device):
                        torch.rand((), device=self._device)
                except RuntimeError:  # the generator stays in the failed capture: no step could draw, nor restore it
                    raise error from None
                copy_state(before, self.state)
                reason = str(error).splitlines()[0]
                if reason not in _told:
                    _told.add(reason)
                    _log.warning("a step can't be captured as a CUDA graph (%s); it runs without", reason)
            else:
                self._graph = graph


@contextlib.contextmanager
def _waits_refused() -> Iterator[None]:
    """Operators that wait for the GPU raise here, before a capture, which they would invalidate."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def clone_state(state: LearnerState) -> LearnerState:
    """The same values in new tensors."""
    return LearnerState(**{part: {name: value.clone() for name, value in own.items()} for part, own in _parts(state)})


@torch.no_grad()
def copy_state(source: LearnerState, target: LearnerState) -> None:
    """Copy one state's values into another's tensors, by name."""
    pairs = [
        (own, given[name])
        for (_, mine), (_, given) in zip(_parts(target), _parts(source), strict=True)
        for name, own in mine.items()
        if own is not given[name]
    ]
    if pairs:
        torch._foreach_copy_([own for own, _ in pairs], [value for _, value in pairs])


def _parts(state: LearnerState) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for field in fields(state):
        yield field.name, getattr(state, field.name)


def _fits(own: Tensor, value: Tensor | float) -> bool:
    return not isinstance(value, Tensor) or own.shape == value.shape
