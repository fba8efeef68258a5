"""Meta-gradient by reverse over reverse: backpropagation through the unrolled base steps. The reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from olfl_ray.engine.optimizers import Params
from olfl_ray.engine.problem import Batch, Problem
from olfl_ray.engine.result import StepResult

__all__ = ["reverse"]


def reverse(
    problem: Problem,
    theta: Params,
    buffers: Params,
    opt_state: Params,
    phi: Params,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
) -> StepResult:
    """Unroll one base step a train batch on M_phi, then d L_T(theta') / d phi by autograd (docs/method.md, Algorithms 1, 2).

    Args:
        problem: Base learner, losses and optimizer.
        theta: Parameters before the steps.
        buffers: Buffers before the steps.
        opt_state: State of the base optimizer.
        phi: Parameters of the learned loss.
        lr: Base learning rate alpha.
        train: One batch a base step (S_inner of them).
        meta: The batch of the outer objective.

    Returns:
        The state after the steps and the gradient with respect to phi, all detached.
    """
    assert problem.learned is not None
    phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
    current: dict[str, Tensor] = {name: value.detach().requires_grad_() for name, value in theta.items()}
    state, live = dict(opt_state), dict(buffers)
    learned_loss = task_loss = torch.zeros(())
    for x, y in train:
        outputs, live = problem.train_forward(current, live, x)
        learned_loss = problem.learned_loss(phi, outputs, y)
        task_loss = problem.task_loss(outputs.detach(), y)
        names = list(current)
        grads = torch.autograd.grad(
            learned_loss, [current[name] for name in names], create_graph=True, materialize_grads=True
        )
        current, state = problem.optimizer.update(current, dict(zip(names, grads, strict=True)), state, lr)
    meta_loss = problem.task_loss(problem.quiet_forward(current, live, meta[0]), meta[1])
    names = list(phi)
    grads = torch.autograd.grad(meta_loss, [phi[name] for name in names], materialize_grads=True)
    return StepResult(
        theta={name: value.detach() for name, value in current.items()},
        buffers={name: value.detach() for name, value in live.items()},
        opt_state={name: value.detach() for name, value in state.items()},
        phi_grad=dict(zip(names, grads, strict=True)),
        base_loss=learned_loss.detach(),
        task_loss=task_loss.detach(),
        meta_loss=meta_loss.detach(),
    )
