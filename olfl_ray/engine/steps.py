"""Algorithms 1 and 2 of online loss function learning, one step at a time; state goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.optimizers import Adam, Optimizer, Sgd, added, clip_scale, global_norm, with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import Estimator, LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["Metrics", "accumulated_step", "base_step", "init_step", "meta_optimizer", "online_step"]

Metrics = dict[str, Tensor]
"""Scalars of one step, on the device: base_loss, task_loss, and after a meta-update meta_loss, grad_norm."""


def base_step(problem: Problem, state: LearnerState, batch: Batch, lr: float | Tensor) -> tuple[LearnerState, Metrics]:
    """One step with phi frozen: theta' = U(theta, g), g = grad of the loss that theta is trained on."""
    x, y = batch
    theta, hooks = leaves(state.theta), problem.hooks
    inputs = list(theta.values())
    of_loss: Params = state.loss_buffers or problem.loss_buffers()
    before = of_loss
    with problem.train_pass(theta, state.buffers, x) as (outputs, buffers):
        if hooks.loss:
            loss, df, _, of_loss = problem.outputs_gradient(state.phi, of_loss, outputs, y)
            found = torch.autograd.grad(outputs, inputs, df, allow_unused=True)
        else:
            loss = problem.base_loss(outputs, y)
            found = torch.autograd.grad(loss, inputs, allow_unused=True)
        loss, g = loss.detach(), with_gradient(theta, found)
        if hooks.penalty:
            penalty, also = problem.penalty_gradient(state.phi, before, theta)
            loss, g = loss + penalty, added(g, also)
    with torch.no_grad():
        new_theta, opt_state = problem.update(state.phi, before, state.theta, g, state.opt_state, lr)
        task_loss = problem.task_loss(outputs, y)
    detached = {name: value.detach() for name, value in buffers.items()}
    new = replace(state, theta=new_theta, buffers=detached, opt_state=opt_state, loss_buffers=dict(of_loss))
    return new, {"base_loss": loss, "task_loss": task_loss}


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
    """One step of Algorithm 2: a base step, then phi' = phi - eta grad_phi L_T(theta')."""
    return _adapted(state, estimator(problem, state, lr, [train], meta), eta, meta_optimizer, clip_norm)


def accumulated_step(
    problem: Problem,
    state: LearnerState,
    train: Sequence[Batch],
    meta: Sequence[Batch],
    *,
    lr: float | Tensor,
    eta: float | Tensor,
    estimator: Estimator,
    meta_optimizer: Optimizer,
    clip_norm: float | None,
) -> tuple[LearnerState, Metrics]:
    """The same with the mean gradient of several micro-batches, by an estimator that accumulates."""
    result = estimator(problem, state, lr, train, meta)  # type: ignore[arg-type]
    return _adapted(state, result, eta, meta_optimizer, clip_norm)


def _adapted(
    state: LearnerState, result: StepResult, eta: float | Tensor, meta_optimizer: Optimizer, clip_norm: float | None
) -> tuple[LearnerState, Metrics]:
    phi, meta_state, norm = _meta_update(state.phi, result.phi_grad, state.meta_state, eta, meta_optimizer, clip_norm)
    new = LearnerState(
        theta=result.theta,
        buffers=result.buffers,
        opt_state=result.opt_state,
        phi=phi,
        meta_state=meta_state,
        loss_buffers=result.loss_buffers,
    )
    return new, {
        "base_loss": result.base_loss,
        "task_loss": result.task_loss,
        "meta_loss": result.meta_loss,
        "grad_norm": norm,
    }


def init_step(
    problem: Problem,
    state: LearnerState,
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
) -> tuple[LearnerState, Tensor]:
    """One round of Algorithm 1 from a new base learner: phi' = phi - eta grad_phi L_T after S_inner base steps.

    Args:
        problem: Base learner, learnable, losses, optimizer.
        state: The learner; only its phi, its learnable's buffers and its meta-optimizer's state are read and updated.
        theta: The new base learner's parameters.
        buffers: Its buffers.
        train: S_inner batches, one per base step.
        meta: The batch of the outer objective.
        lr: Base learning rate.
        eta: Meta learning rate.
        estimator: Estimator of the meta-gradient.
        meta_optimizer: Optimizer of phi.
        clip_norm: Largest norm of the meta-gradient.

    Returns:
        The learner, and L_T after the unrolled steps.
    """
    new = replace(state, theta=dict(theta), buffers=dict(buffers), opt_state=problem.optimizer.init(theta))
    result = estimator(problem, new, lr, train, meta, fresh=True)
    phi, meta_state, _ = _meta_update(state.phi, result.phi_grad, state.meta_state, eta, meta_optimizer, clip_norm)
    return replace(state, phi=phi, meta_state=meta_state, loss_buffers=result.loss_buffers), result.meta_loss


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
