"""From what a user's loop gives (modules, losses, an optimizer, batches) to the engine's own parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from olfl_ray.engine.arguments import check_name, check_rate
from olfl_ray.engine.arithmetic import Precision
from olfl_ray.engine.batches import Batch
from olfl_ray.engine.drawing import drawn
from olfl_ray.engine.estimators.choice import Memory
from olfl_ray.engine.estimators.named import ESTIMATORS
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import LearnerState
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = [
    "Select",
    "TaskLoss",
    "check_choice",
    "check_in_place",
    "check_trained",
    "knows_draws",
    "optimizer_of",
    "problem_of",
    "tensors_of",
]

TaskLoss = Callable[[Tensor, Any], Tensor]
"""L_T, called with (outputs, targets)."""
Select = Callable[[Any], Tensor]
"""From what a module returns to its outputs."""


def check_choice(estimator: str, memory: str) -> None:
    """Names of an estimator and of a memory mode."""
    ESTIMATORS.find(estimator, "estimator")
    check_name("memory", memory, get_args(Memory))


def check_trained(field: str, before: Params, now: Params, state: Params) -> None:
    """What the optimizer keeps is of the parameters that it began with."""
    if state and before.keys() != now.keys():
        names = ", ".join(sorted(before.keys() ^ now.keys()))
        raise SpecError(field, f"has frozen or unfrozen {names} since the learner was made; make a new learner")


def check_in_place(problem: Problem, state: LearnerState) -> None:
    """A graph writes where the modules' tensors stood when it was captured.

    Raises:
        SpecError: One of them stands elsewhere now.
    """
    for field, moved in problem.moved_from(state.theta, state.buffers, state.phi).items():
        if moved:
            raise SpecError(
                field,
                f"has {', '.join(moved)} in other memory than the captured graph writes to (an assignment to `.data`, "
                "`flatten_parameters` or `to` moves them); make a new learner after such a change, or use graph=False",
            )


def tensors_of(module: nn.Module, learned: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """theta, buffers and phi: the modules' own tensors, without their graphs."""
    theta, phi = (
        {name: value.detach() for name, value in part.named_parameters() if value.requires_grad}
        for part in (module, learned)
    )
    return theta, dict(module.named_buffers()), phi


def problem_of(
    module: nn.Module,
    optimizer: Optimizer,
    learned: nn.Module,
    task_loss: TaskLoss,
    *,
    precision: Precision = "float32",
    select: Select | None = None,
    unpack: bool = False,
) -> Problem:
    """The engine's problem of a user's modules; what a pass draws is not known yet."""
    if select is not None and not callable(select):
        raise SpecError("select", f"is a {type(select).__name__}, but must be called with what the module returns")
    return Problem(
        module=module,
        learned=learned,
        task_loss=task_loss,
        base_loss=task_loss,
        optimizer=optimizer,
        draws_random=True,
        draws_python=True,
        precision=precision,
        select=select,
        unpack=unpack,
    )


def knows_draws(problem: Problem, batch: Batch, *, replayed: bool) -> tuple[bool, bool]:
    """What a pass on a batch draws: from any generator, and from Python's own.

    A user's loop may raise a dropout rate from 0 during training, so torch's generators count as drawn from, except
    in a graph, where all that the host decides is fixed and a generator that is put back could not be captured.
    """
    few = problem.few(batch)
    with problem.unchanged():
        random, python = drawn(lambda: problem.base_loss_of(few), problem.device)
    return random or not replayed, python


def optimizer_of(
    module: nn.Module, given: Any, lr: float | None, clip_norm: float | None = None
) -> tuple[Optimizer, Callable[[], float]]:
    """The pure optimizer, and where its learning rate is read.

    Raises:
        SpecError: It has no counterpart here, or a learning rate is lacking, or given twice.
    """
    if clip_norm is not None:
        check_rate("clip_norm", clip_norm, positive=True)
        if isinstance(given, Optimizer):
            raise SpecError(
                "clip_norm", f"is {clip_norm}, but this package's optimizers bring their own; give it to them"
            )
    if isinstance(given, Optimizer):
        if lr is None:
            raise SpecError(
                "lr", "is None, but this package's optimizers have no learning rate; set lr, for example lr=0.01"
            )
        check_rate("lr", lr)
        return given, lambda: lr
    if not isinstance(given, torch.optim.Optimizer):
        raise SpecError("optimizer", f"is a {type(given).__name__}, but must be one of this package's or of torch's")
    if lr is not None:
        raise SpecError("lr", f"is {lr}, but a torch optimizer brings its own; leave lr out")
    followed = Followed(given, module, clip_norm)
    return followed, followed.lr
