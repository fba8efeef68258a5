"""The choice of a meta-gradient estimator: what was requested, what agrees with a plain loop, what fits in memory."""

from __future__ import annotations

import contextlib
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from olfl_ray.engine.batches import Batch, examples, some_examples
from olfl_ray.engine.estimators.accumulated import accumulated
from olfl_ray.engine.estimators.agreement import Moment, disagreement
from olfl_ray.engine.estimators.compared import SECOND, Compared, record_of
from olfl_ray.engine.estimators.exact import exact, products
from olfl_ray.engine.estimators.finite_difference import finite_difference
from olfl_ray.engine.estimators.named import ESTIMATORS
from olfl_ray.engine.estimators.own import check_own
from olfl_ray.engine.estimators.reverse import reverse
from olfl_ray.engine.kernels.plain import PlainKernels, plain_kernels
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import Estimator, LearnerState, StepResult
from olfl_ray.errors import SpecError, UserError
from olfl_ray.memory import host_memory

__all__ = ["Memory", "choose_estimator", "pick_memory"]

Memory = Literal["auto", "low", "fast"]

Way = Literal["low", "fast", "reverse", "finite_difference"]
WAYS: Mapping[Way, Estimator] = {
    "low": partial(exact, memory="low"),
    "fast": partial(exact, memory="fast"),
    "reverse": reverse,
    "finite_difference": finite_difference,
}
ACCUMULATED: Mapping[Way, Estimator] = {
    way: partial(accumulated, gradients_along=products("low" if way == "low" else "fast")[1])
    for way in ("low", "fast", "reverse")
}
"""The same of a base step on several micro-batches; there, reverse and fast do the same."""
EXACT: tuple[Way, ...] = ("low", "fast", "reverse")
"""The exact ones, from the one with the least memory to the one that requires least of a module's operators."""

FAST_SHARE = 0.125
"""Fraction of the device's memory that one replicate's activations may use in fast mode; several trials may share a device."""
KEPT_TWICE = 2.5
"""Memory of a retained backward pass with its activations, in units of the activations that a forward pass saves."""

_told: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_log = logging.getLogger(__name__)


def choose_estimator(
    name: str,
    memory: Memory,
    inner_steps: int,
    problem: Problem,
    batch: Batch,
    *,
    accumulates: bool = False,
) -> Estimator:
    """The estimator called `name`, tried on two examples of `batch`, then compared with a plain loop on all of them.

    `auto` is exact with low memory; if this learner does not support that, fast, and if not exact either, reverse; a warning
    is logged once per module. The result compares itself again at random steps (`EVERY`), and is chosen again if the
    modules' submodules, modes or hooks have changed.

    Args:
        name: A file of this package: auto, exact, reverse or finite_difference; or `package.module:Class`.
        memory: For exact: low, fast, or auto, which is fast if that fits.
        inner_steps: S_inner, the largest number of base steps to unroll.
        problem: Base learner, learnable, losses and optimizer.
        batch: A train batch.
        accumulates: Whether what is given takes one base step on several micro-batches, `train`, and has several in `meta`.

    Raises:
        SpecError: The requested estimator is not available for this learner; or none is, as the module, the losses and the
            batch do not match.
    """
    if ":" not in name and not (problem.hooks.gradient or problem.hooks.start):
        _check_hooks(problem)
        if accumulates:
            return ACCUMULATED["reverse"]
        # One step whose gradient does not depend on phi needs no second derivative of the module.
        return plain_kernels(problem, problem.few(batch)).around(reverse) if inner_steps > 1 else reverse
    if name == "finite_difference" and problem.precision == "bf16":
        raise SpecError(
            "meta.estimator",
            "finite_difference is lost in the rounding error of learner.precision=bf16; use auto, or float32",
        )
    if accumulates and (":" in name or name == "finite_difference"):
        raise SpecError(
            "estimator",
            f"is {name!r}, which has no step on several micro-batches; use auto, exact or reverse",
        )
    moment = Moment(
        theta=problem.theta(),
        buffers=problem.buffers(),
        phi=problem.phi(),
        loss_buffers=problem.loss_buffers(),
        batch=batch,
    )
    if ":" in name:
        return _own(name, inner_steps, problem, moment)
    return _choose(name, memory, 2 if accumulates else inner_steps, accumulates, problem, moment)


def _own(name: str, inner_steps: int, problem: Problem, moment: Moment) -> Estimator:
    """A user's estimator."""
    _check_hooks(problem)
    estimator = ESTIMATORS.find(name, "meta.estimator")()
    with problem.unchanged():
        few = replace(moment, batch=problem.few(moment.batch))
        kernels = plain_kernels(problem, few.batch)

        def step(way: Estimator) -> StepResult:
            with problem.unchanged(), kernels.inside():
                return _step(way, inner_steps, problem, few)

        check_own(estimator, name, step)
    return kernels.around(estimator)


def _choose(
    name: str, memory: Memory, inner_steps: int, accumulates: bool, problem: Problem, moment: Moment
) -> Compared:
    _check_hooks(problem)
    with problem.unchanged():
        few = replace(moment, batch=problem.few(moment.batch))
        kernels = plain_kernels(problem, few.batch)
        ways: Sequence[Way] = ("reverse",) if name == "reverse" else ("finite_difference",)
        if name in ("auto", "exact"):
            with kernels.inside():
                wanted = pick_memory(problem, few.batch[0], _times(moment, few)) if memory == "auto" else memory
            ways = EXACT[EXACT.index(wanted) :]
        found, error = _first(ways, kernels, inner_steps, problem, moment, few)
    if error is not None:
        reason = _said(error)
        if name == "exact" and (found == "reverse" or memory == "low"):
            raise SpecError(
                "meta.estimator", f"exact is not available for this learner ({reason}); use auto or reverse"
            ) from error
        if problem.module not in _told:
            _told.add(problem.module)
            other = "reverse over reverse" if found == "reverse" else "exact with memory fast"
            _log.warning("meta.estimator: %s uses %s for this learner (%s)", name, other, reason)
    if found == "low":  # a gate that opens after the first step may cut a gradient that forward mode does not see
        record_of(problem.module).left = SECOND
    return _compared(found, kernels, name, memory, inner_steps, accumulates, problem)


def _compared(
    way: Way,
    kernels: PlainKernels,
    name: str,
    memory: Memory,
    inner_steps: int,
    accumulates: bool,
    problem: Problem,
) -> Compared:
    """A way that has been compared; it holds none of the problem's modules but in their signature."""
    return Compared(
        way,
        kernels.around((ACCUMULATED if accumulates else WAYS)[way]),
        problem,
        partial(_compare_again, way, kernels, inner_steps),
        partial(_choose, name, memory, inner_steps, accumulates),
        partial(_compared, way, kernels, name, memory, inner_steps, accumulates),
    )


def _first(
    ways: Sequence[Way], kernels: PlainKernels, inner_steps: int, problem: Problem, moment: Moment, few: Moment
) -> tuple[Way, Exception | None]:
    """The first of some modes that this learner supports, and why it does not support the first in the list."""
    error: Exception | None = None
    for way in ways:
        try:
            with kernels.inside():
                with problem.unchanged():
                    _step(WAYS[way], inner_steps, problem, few)
                _compare(way, inner_steps, problem, moment, few)
        except UserError:
            raise
        except Exception as caught:  # a user's module may raise anything
            error, last = error or caught, caught
        else:
            return way, error
    if isinstance(last, _Differs):
        raise SpecError("meta.estimator", f"{ways[-1]} is not available for this learner ({last}); use auto or reverse")
    raise SpecError(
        "meta.estimator",
        f"no meta-gradient can be computed: {type(last).__name__}: {_said(last)}; check that outputs, targets and losses "
        "have matching shapes and types, that their operators can be differentiated twice, and that nothing detaches the gradient",
    ) from last


def pick_memory(problem: Problem, rows: Any, times: float) -> Literal["low", "fast"]:
    """fast if a retained backward pass needs only a small part of the device's memory.

    This depends on the total memory, not on the free memory: the two modes round differently, and a trial that resumes from
    its state must use the same mode.

    Args:
        problem: Base learner and its parts.
        rows: Inputs of some examples for a trial pass.
        times: Size of a full batch, in units of those examples.
    """
    return "fast" if times <= _affordable(problem, rows) else "low"


def _affordable(problem: Problem, rows: Any) -> float:
    """How many times as large a batch may be so that its retained backward pass fits into that part of the memory."""
    device = problem.device
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else host_memory()
    saved = _saved(problem, rows)
    return FAST_SHARE * total / (KEPT_TWICE * saved) if saved else math.inf


def _times(moment: Moment, few: Moment) -> float:
    return (examples(moment.batch) or 1) / (examples(few.batch) or 1)


def _saved(problem: Problem, rows: Any) -> int:
    """Bytes that a forward pass saves for its backward pass, without parameters; 0 if no pass can be run."""
    theta = leaves(problem.theta())
    own = {value.data_ptr() for value in (*problem.module.parameters(), *theta.values())}
    weighed = 0

    def weigh(tensor: Tensor) -> Tensor:
        nonlocal weighed
        if tensor.layout is not torch.strided or tensor.data_ptr() not in own:
            weighed += tensor.numel() * tensor.element_size()
        return (
            tensor.detach()
        )  # a node that saved its own result directly would keep itself, and this pass, alive forever

    # torch.func does not support saved-tensor hooks: there, the results of functions are counted instead.
    for watch in (torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor), _Results(weigh)):
        weighed = 0
        with contextlib.suppress(Exception), problem.unchanged(), watch:
            problem.train_forward(theta, problem.buffers(), rows)
            return weighed
    return 0


class _Results(TorchFunctionMode):
    """Inside, each tensor that a torch function returns is passed to another function."""

    def __init__(self, show: Callable[[Tensor], object]) -> None:
        super().__init__()
        self._show = show

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and torch._C._functorch.peek_interpreter_stack() is None:
            with torch._C.DisableTorchFunction():
                self._show(found)
        return found


def _step(estimator: Estimator, inner_steps: int, problem: Problem, at: Moment) -> StepResult:
    """Of at most two base steps."""
    state = LearnerState(
        theta=dict(at.theta),
        buffers=dict(at.buffers),
        opt_state=problem.optimizer.init(at.theta),
        phi=dict(at.phi),
        meta_state={},
        loss_buffers=dict(at.loss_buffers),
    )
    return estimator(problem, state, 1e-3, [at.batch] * min(inner_steps, 2), at.batch, fresh=problem.hooks.start)


class _Differs(RuntimeError):
    """The values of a mode differ from a plain loop's."""


def _compare(way: Way, inner_steps: int, problem: Problem, moment: Moment, few: Moment) -> None:
    """Compare on every example of the batch, in parts of the size that fast could hold."""
    for part in [few.batch] if way == "reverse" else _parts(problem, moment, few):
        cause = disagreement(problem, way, replace(moment, batch=part), unrolled=_unrolled(problem, inner_steps))
        if cause is not None:
            raise _Differs(cause)
    record_of(problem.module).agreed()


def _unrolled(problem: Problem, inner_steps: int) -> bool:
    """Whether the Hessian is needed: by several steps, or by a learned start."""
    return inner_steps > 1 or problem.hooks.start


def _compare_again(way: Way, kernels: PlainKernels, inner_steps: int, problem: Problem, moment: Moment) -> None:
    """Compare at a later step, on as many examples as fast could hold."""
    record_of(problem.module).agreed()
    if way == "reverse":
        return
    with kernels.inside():
        few = replace(moment, batch=problem.few(moment.batch))
        part = next(_parts(problem, moment, few))
        cause = disagreement(problem, way, replace(moment, batch=part), unrolled=_unrolled(problem, inner_steps))
    if cause is not None:
        raise SpecError(
            "meta.estimator",
            f"is {way} for this learner, which was correct at the first step and no longer is: {cause}; "
            "use reverse, or change the module",
        )


def _parts(problem: Problem, moment: Moment, few: Moment) -> Iterator[Batch]:
    """A batch in equal parts that the memory allows; the full batch if a module needs its size."""
    count, least = examples(moment.batch), examples(few.batch)
    if count is None or least is None or least == count:
        yield moment.batch
        return
    most = max(least, int(min(least * _affordable(problem, few.batch[0]), count)))
    parts = -(-count // most)
    for index in range(parts):
        yield some_examples(moment.batch, index * count // parts, (index + 1) * count // parts)


def _check_hooks(problem: Problem) -> None:
    """Refuse hooks on parameters: the engine differentiates copies of them, for which the hooks would not run."""
    parts = {"module": problem.module, "learned_loss": problem.learned}
    hooked = [
        (field, name)
        for field, part in parts.items()
        for name, value in part.named_parameters()
        if value._backward_hooks or getattr(value, "_post_accumulate_grad_hooks", None)
    ]
    for field, name in hooked:
        raise SpecError(
            field, f"has a hook on its parameter {name}, which would not run here; put it into forward, or remove it"
        )


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
