"""Meta-gradient by reverse over reverse: backpropagation through the unrolled base steps. The reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.named import NamedEstimator
from olfl_ray.engine.optimizers import with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["Reverse", "reverse"]


def reverse(
    problem: Problem,
    state: LearnerState,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
    *,
    fresh: bool = False,
) -> StepResult:
    """Unroll one base step per train batch, then compute d L_T(theta') / d phi by autograd (docs/method.md, Algorithms 1, 2).

    Each step's part of the graph is traversed separately, from the last to the first, with that step's theta in the module.
    Arguments and result are those of `Estimator`.
    """
    phi, hooks = leaves(state.phi), problem.hooks
    starts = fresh and hooks.start
    twice = hooks.gradient or starts or len(train) > 1  # else g does not depend on phi
    live, opt_state = dict(state.buffers), dict(state.opt_state)
    of_loss = dict(state.loss_buffers) or problem.loss_buffers()
    begun = problem.starting(phi, of_loss, state.theta) if starts else state.theta
    current = leaves(begun)
    base_loss = task_loss = torch.zeros(())
    steps: list[_Taken] = []
    reached: list[Tensor] = []
    if starts:
        ends = _dependent(begun)
        steps.append(_Taken(theta=state.theta, buffers=live, loss_buffers=of_loss, starts=[], ends=ends))
        reached = [current[name] for name, value in begun.items() if value.requires_grad]
    for x, y in train:
        with (
            problem.train_pass(current, live, x) as (outputs, after),
            problem.learned_pass(phi, of_loss, outputs, y, current) as (loss, of_loss_after),
        ):
            found = torch.autograd.grad(loss, list(current.values()), create_graph=twice, allow_unused=True)
        base_loss, task_loss = loss, problem.task_loss(outputs.detach(), y)
        moved, moved_state = problem.update(phi, of_loss, current, with_gradient(current, found), opt_state, lr)
        ends = _dependent(moved, moved_state, after, of_loss_after)
        steps.append(_Taken(theta=current, buffers=live, loss_buffers=of_loss, starts=reached, ends=ends))
        current, opt_state, live, of_loss = _cut(moved), _cut(moved_state), _cut(after), _cut(of_loss_after)
        reached = _dependent(current, opt_state, live, of_loss)
    with problem.quiet_pass(current, live, meta[0]) as outputs:
        meta_loss = problem.task_loss(outputs, meta[1])
        adjoint = torch.autograd.grad(meta_loss, reached, allow_unused=True)
    phi_grad = {name: torch.zeros_like(value) for name, value in phi.items()}
    for step in reversed(steps):
        pairs = [(end, seed) for end, seed in zip(step.ends, adjoint, strict=True) if seed is not None]
        with problem.placed(step.theta, step.buffers), problem.loss_placed(phi, step.loss_buffers):
            inputs = [*phi.values(), *step.starts]
            found = torch.autograd.grad(
                [end for end, _ in pairs], inputs, [seed for _, seed in pairs], allow_unused=True
            )
        adjoint = found[len(phi) :]
        for name, value in zip(phi, found, strict=False):
            if value is not None:
                phi_grad[name] = phi_grad[name] + value
    return StepResult(
        theta={name: value.detach() for name, value in current.items()},
        buffers={name: value.detach() for name, value in live.items()},
        opt_state={name: value.detach() for name, value in opt_state.items()},
        loss_buffers={name: value.detach() for name, value in of_loss.items()},
        phi_grad=phi_grad,
        base_loss=base_loss.detach(),
        task_loss=task_loss.detach(),
        meta_loss=meta_loss.detach(),
    )


class Reverse(NamedEstimator):
    """Reverse over reverse, exact to rounding."""

    __call__ = staticmethod(reverse)


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """One base step's part of the graph, or that of the learnable's start.

    Args:
        theta: Parameters before the step.
        buffers: Buffers before the step.
        loss_buffers: Buffers of the learned loss before the step.
        starts: Those of theta, the optimizer's state and all buffers before the step that depend on phi.
        ends: The same after the step.
    """

    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    loss_buffers: dict[str, Tensor]
    starts: list[Tensor]
    ends: list[Tensor]


def _cut(tensors: Params) -> dict[str, Tensor]:
    """The same values, as leaves if they have a graph."""
    return {name: value.detach().requires_grad_(value.requires_grad) for name, value in tensors.items()}


def _dependent(*groups: Params) -> list[Tensor]:
    return [value for group in groups for value in group.values() if value.requires_grad]
