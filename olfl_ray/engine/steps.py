"""Algorithms 1 and 2 of online loss function learning, one step at a time; state goes in and comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.optimizers import Adam, Optimizer, Params, Sgd, clip_scale, global_norm, with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.result import StepResult

__all__ = ["LearnerState", "Metrics", "base_step", "init_step", "online_lr_step", "online_step"]

Estimator = Callable[..., StepResult]
Metrics = dict[str, Tensor]
"""Scalars of one step, on the device: base_loss, task_loss, and after a meta-update meta_loss, grad_norm."""


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """Everything that one replicate's training changes.

    Args:
        theta: Parameters of the base learner.
        buffers: Its buffers.
        opt_state: State of the base optimizer.
        phi: Parameters of the learned loss; for online_lr, `{"alpha": base learning rate}`; empty for a baseline.
        meta_state: State of the meta-optimizer.
        loss_buffers: Buffers of the learned loss, which change once per base step.
    """

    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    opt_state: dict[str, Tensor]
    phi: dict[str, Tensor]
    meta_state: dict[str, Tensor]
    loss_buffers: dict[str, Tensor] = field(default_factory=dict)


def base_step(problem: Problem, state: LearnerState, batch: Batch, lr: float | Tensor) -> tuple[LearnerState, Metrics]:
    """One ordinary step: theta' = U(theta, grad of M_phi (phi frozen) or of the task loss)."""
    x, y = batch
    theta = leaves(state.theta)
    inputs = list(theta.values())
    of_loss: Params = state.loss_buffers or problem.loss_buffers()
    with problem.train_pass(theta, state.buffers, x) as (outputs, buffers):
        if problem.learned is None:
            loss = problem.base_loss(outputs, y)
            found = torch.autograd.grad(loss, inputs, allow_unused=True)
        else:
            loss, df, _, of_loss = problem.outputs_gradient(state.phi, of_loss, outputs, y)
            found = torch.autograd.grad(outputs, inputs, df, allow_unused=True)
    with torch.no_grad():
        new_theta, opt_state = problem.optimizer.update(state.theta, with_gradient(theta, found), state.opt_state, lr)
        task_loss = problem.task_loss(outputs, y)
    detached = {name: value.detach() for name, value in buffers.items()}
    new = replace(state, theta=new_theta, buffers=detached, opt_state=opt_state, loss_buffers=dict(of_loss))
    return new, {"base_loss": loss.detach(), "task_loss": task_loss}


def online_step(
    problem: Problem,
    state: LearnerState,
    train: Batch,
    meta: Batch,
    *,
    lr: float | Tensor,
    eta: float | Tensor,
    estimator: Estimator,
    meta_optimizer: Optimizer,
    clip_norm: float | None,
) -> tuple[LearnerState, Metrics]:
    """One step of Algorithm 2: a base step on M_phi, then phi' = phi - eta grad_phi L_T(theta')."""
    parts = state.theta, state.buffers, state.opt_state, state.phi
    result = estimator(problem, *parts, lr, [train], meta, loss_buffers=state.loss_buffers or None)
    phi, meta_state, norm = _meta_update(state.phi, result.phi_grad, state.meta_state, eta, meta_optimizer, clip_norm)
    new = LearnerState(
        theta=result.theta,
        buffers=result.buffers,
        opt_state=result.opt_state,
        phi=phi,
        meta_state=meta_state,
        loss_buffers=result.loss_buffers,
    )
    assert result.meta_loss is not None
    return new, {
        "base_loss": result.base_loss,
        "task_loss": result.task_loss,
        "meta_loss": result.meta_loss,
        "grad_norm": norm,
    }


def online_lr_step(
    problem: Problem,
    state: LearnerState,
    train: Batch,
    meta: Batch,
    *,
    factor: float | Tensor,
    eta: float | Tensor,
    meta_optimizer: Optimizer,
    clip_norm: float | None,
) -> tuple[LearnerState, Metrics]:
    """The ablation: a scalar alpha in phi's place, the task loss as base loss; lr = alpha times the schedule's factor."""
    x, y = train
    theta = leaves(state.theta)
    with problem.train_pass(theta, state.buffers, x) as (outputs, buffers):
        loss = problem.base_loss(outputs, y)
        found = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
    grads = with_gradient(theta, found)
    alpha = state.phi["alpha"].detach().requires_grad_()
    fixed = {name: value.detach() for name, value in theta.items()}
    moved, opt_state = problem.optimizer.update(fixed, grads, state.opt_state, alpha * factor)
    live = {name: value.detach() for name, value in buffers.items()}
    with problem.quiet_pass(moved, live, meta[0]) as ahead:
        meta_loss = problem.task_loss(ahead, meta[1])
        (grad,) = torch.autograd.grad(meta_loss, [alpha])
    phi, meta_state, norm = _meta_update(state.phi, {"alpha": grad}, state.meta_state, eta, meta_optimizer, clip_norm)
    new = LearnerState(
        theta={name: value.detach() for name, value in moved.items()},
        buffers=live,
        opt_state={name: value.detach() for name, value in opt_state.items()},
        phi=phi,
        meta_state=meta_state,
    )
    task_loss = problem.task_loss(outputs.detach(), y)
    return new, {"base_loss": loss.detach(), "task_loss": task_loss, "meta_loss": meta_loss.detach(), "grad_norm": norm}


def init_step(
    problem: Problem,
    phi: Params,
    meta_state: Params,
    theta: Params,
    buffers: Params,
    train: Sequence[Batch],
    meta: Batch,
    *,
    lr: float | Tensor,
    eta: float | Tensor,
    estimator: Estimator,
    meta_optimizer: Optimizer,
    clip_norm: float | None,
    loss_buffers: Params | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], Tensor]:
    """One round of Algorithm 1 from a freshly reset theta.

    Returns:
        phi', the meta-optimizer's state, the learned loss's buffers, and L_T after the unrolled steps.
    """
    opt_state = problem.optimizer.init(theta)
    result = estimator(problem, theta, buffers, opt_state, phi, lr, train, meta, loss_buffers=loss_buffers or None)
    assert result.meta_loss is not None
    new_phi, new_state, _ = _meta_update(phi, result.phi_grad, meta_state, eta, meta_optimizer, clip_norm)
    return new_phi, new_state, result.loss_buffers, result.meta_loss


@torch.no_grad()
def _meta_update(
    phi: Params, grads: Params, state: Params, eta: float | Tensor, optimizer: Optimizer, clip_norm: float | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    norm = global_norm(grads)
    if clip_norm is not None:
        scale = clip_scale(norm, clip_norm)
        grads = {name: grad * scale for name, grad in grads.items()}
    new_phi, new_state = optimizer.update(phi, dict(grads), state, eta)
    return new_phi, new_state, norm


def meta_optimizer(name: str) -> Optimizer:
    """Adam or plain SGD for phi."""
    return Adam() if name == "adam" else Sgd()


def schedule_factor(schedule: object, step: int, steps: int) -> float:
    """Factor on the base learning rate at a step, in [0, 1]."""
    name = getattr(schedule, "name", "constant")
    done = step / steps
    if name == "milestones":
        return float(schedule.factor ** sum(done >= at for at in schedule.at))  # type: ignore[attr-defined]
    if name == "cosine":
        final: float = schedule.final  # type: ignore[attr-defined]
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
