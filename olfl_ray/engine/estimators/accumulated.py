"""One base step on the mean gradient of several micro-batches, and its exact meta-gradient, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.unroll import GradientsAlong, Point, take_point, through_update
from olfl_ray.engine.optimizers import added
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["accumulated"]


def accumulated(
    problem: Problem,
    state: LearnerState,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Sequence[Batch],
    *,
    fresh: bool = False,
    gradients_along: GradientsAlong,
) -> StepResult:
    """g = mean_k g_k, theta' = U(theta, g), v = mean_j grad L_T^j(theta'), w = (dU/dg)^T v, and

        dL_T/dphi = mean_k d <g_k, w> / d phi + (dU/dphi)^T v

    Each pass is taken twice, so that the activations of one micro-batch are held at a time. Batch norm uses each
    micro-batch's own statistics, and its running ones move once a micro-batch, as in a plain loop that accumulates.

    Args:
        problem: Base learner, learnable, losses and optimizer.
        state: The learner before the step.
        lr: Base learning rate alpha.
        train: Micro-batches of the base step, of equal weight.
        meta: Micro-batches of the outer objective, of equal weight.
        fresh: Not supported: a learnable's `start` takes no part.
        gradients_along: d <g_k, w> / d phi; its other part is not used.
    """
    assert not fresh
    phi, share = state.phi, 1 / len(train)
    live: Params = state.buffers
    of_loss: Params = state.loss_buffers or problem.loss_buffers()
    before = of_loss
    g: dict[str, Tensor] = {}
    points: list[Point] = []
    base_losses, task_losses = [], []
    for batch in train:
        point, found, live, of_loss, base_loss = take_point(
            problem, state.theta, live, state.opt_state, phi, of_loss, batch, keep_backward=False
        )
        assert point.outputs_BC is not None
        with torch.no_grad():
            task_losses.append(problem.task_loss(point.outputs_BC, batch[1]))
        live = {name: value.detach() for name, value in live.items()}
        base_losses.append(base_loss.detach())
        g = added(g, {name: share * value for name, value in found.items()})
        points.append(replace(point, outputs_BC=None))
    with torch.no_grad():
        theta, opt_state = problem.update(phi, before, state.theta, dict(g), state.opt_state, lr)
    adjoint, meta_loss = _outer(problem, theta, live, meta)
    step = replace(points[0], g=g, loss_buffers=before)
    back = through_update(problem, phi, step, lr, adjoint, {}, first=True)
    phi_grad: Params = back.phi
    if problem.hooks.gradient:
        for point in points:
            _, along_phi = gradients_along(problem, phi, point, {name: back.w[name] for name in point.reached})
            phi_grad = added(phi_grad, {name: share * value for name, value in along_phi.items()})
    return StepResult(
        theta=dict(theta),
        buffers=dict(live),
        opt_state=dict(opt_state),
        loss_buffers=dict(of_loss),
        phi_grad={name: phi_grad[name] if name in phi_grad else torch.zeros_like(value) for name, value in phi.items()},
        base_loss=torch.stack(base_losses).mean(),
        task_loss=torch.stack(task_losses).mean(),
        meta_loss=meta_loss,
    )


def _outer(problem: Problem, theta: Params, buffers: Params, meta: Sequence[Batch]) -> tuple[dict[str, Tensor], Tensor]:
    """v = mean_j grad L_T^j, and the mean of L_T^j."""
    share, adjoint, losses = 1 / len(meta), dict[str, Tensor](), []
    for x, y in meta:
        ahead = leaves(theta)
        with problem.quiet_pass(ahead, buffers, x) as outputs_BC:
            loss = problem.task_loss(outputs_BC, y)
            found = torch.autograd.grad(loss, list(ahead.values()), materialize_grads=True)
        adjoint = added(adjoint, {name: share * value for name, value in zip(ahead, found, strict=True)})
        losses.append(loss.detach())
    return adjoint, torch.stack(losses).mean()
