"""Base steps forward, then their adjoint backward: d L_T / d phi with theta, g and the optimizer's state kept a step."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.drawing import RandomStates
from olfl_ray.engine.optimizers import Params, with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.result import StepResult
from olfl_ray.engine.seeded import Seeded

__all__ = ["GradientsAlong", "OutputsAlong", "Point", "take_point", "through_loss", "unroll"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where one base step was taken: all that its derivatives need, with no activation of the network.

    Args:
        theta: Parameters before the step.
        buffers: Buffers before the step.
        opt_state: State of the base optimizer before the step.
        loss_buffers: Buffers of the learned loss before the step.
        reached: Names of the parameters that have a gradient; the others stay as they are.
        g: grad_theta M_phi of those; empty where the update is linear in it and no derivative needs it.
        batch: The train batch.
        random: States that the forward pass drew from, None where it draws nothing.
        random_loss: Those that the learned loss then drew from.
        outputs_BC: f_theta(x), kept of the first step alone.
        along_phi: From u to d <dM_phi/df, u> / d phi, kept only of the first step, and only during its backward pass:
            what it holds, the loss network's units for every output of the batch, is quickly recomputed.
        backward: df and, where the graph is kept, the ends of g as a function of it, where g depends on it.
    """

    theta: Params
    buffers: Params
    opt_state: Params
    loss_buffers: Params
    reached: Sequence[str]
    g: Params
    batch: Batch
    random: RandomStates | None
    random_loss: RandomStates | None
    outputs_BC: Tensor | None = None
    along_phi: Callable[[Tensor], dict[str, Tensor]] | None = None
    backward: tuple[Tensor, Mapping[str, GradientEdge]] | None = None


OutputsAlong = Callable[[Problem, Point, Params], Tensor]
"""u = J_f(theta; x) w, of shape (B, C)."""
GradientsAlong = Callable[[Problem, Params, Point, Params], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""H w, H = the Hessian of M_phi in theta; and d <g, w> / d phi."""


def unroll(
    problem: Problem,
    theta: Params,
    buffers: Params,
    opt_state: Params,
    phi: Params,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
    *,
    loss_buffers: Params | None,
    outputs_along: OutputsAlong,
    gradients_along: GradientsAlong,
    keep_backward: bool,
) -> StepResult:
    """Arguments and result as of `reverse`; how a derivative along w is taken is the estimator's.

    With lambda and sigma the adjoints of theta and of the optimizer's state, from lambda = grad L_T at the last theta,
    sigma = 0, a step backward is (the idea: MixFlow-MG, arXiv 2505.00793; one step: docs/method.md)

        w                = (dU/dg)^T (lambda, sigma)
        dL_T/dphi       += d <g, w> / d phi
        lambda, sigma    = (dU/d(theta, s))^T (lambda, sigma) + (H w, 0)

    At the first step no lambda is needed, and d <g, w> / d phi = d/dphi < dM_phi/df, u >, u = J_f w: no Hessian there.
    """
    points: list[Point] = []
    scale = problem.optimizer.gradient_factor(lr) if len(train) == 1 else None
    live: Params = buffers
    of_loss: Params = problem.loss_buffers() if loss_buffers is None else loss_buffers
    learned_loss = task_loss = torch.zeros(())
    for batch in train:
        point, g, live, of_loss, learned_loss = take_point(
            problem, theta, live, opt_state, phi, of_loss, batch, keep_backward=keep_backward and not points
        )
        assert point.outputs_BC is not None
        with torch.no_grad():
            task_loss = problem.task_loss(point.outputs_BC, batch[1])
            point = replace(point, g=dict(g) if scale is None else {}, outputs_BC=None if points else point.outputs_BC)
            theta, opt_state = problem.optimizer.update(theta, g, opt_state, lr)
        points.append(point)
    ahead = leaves(theta)
    with problem.quiet_pass(ahead, live, meta[0]) as outputs_BC:
        meta_loss = problem.task_loss(outputs_BC, meta[1])
        found = torch.autograd.grad(meta_loss, list(ahead.values()), materialize_grads=True)
    adjoint: Params = dict(zip(ahead, found, strict=True))
    del found
    phi_grad: dict[str, Tensor] = {}
    sigma: Params = {}
    w: Params
    for point in reversed(points[1:]):
        w, direct, sigma = _through_update(problem, point, lr, adjoint, sigma)
        curved, along_phi = gradients_along(problem, phi, point, w)
        adjoint = {name: value + curved[name] for name, value in direct.items()}
        phi_grad = {name: phi_grad[name] + value if phi_grad else value for name, value in along_phi.items()}
    first = points[0]
    w = {name: adjoint[name] for name in first.reached}
    if scale is None:
        w, _, _ = _through_update(problem, first, lr, adjoint, sigma, gradient_only=True)
    u_BC = outputs_along(problem, first, w)
    if scale is not None:
        u_BC = u_BC * scale
    along_phi = through_loss(problem, phi, first, u_BC)
    return StepResult(
        theta=dict(theta),
        buffers={name: value.detach() for name, value in live.items()},
        opt_state=dict(opt_state),
        loss_buffers=dict(of_loss),
        phi_grad={name: phi_grad[name] + value if phi_grad else value for name, value in along_phi.items()},
        base_loss=learned_loss.detach(),
        task_loss=task_loss,
        meta_loss=meta_loss.detach(),
    )


def take_point(
    problem: Problem,
    theta: Params,
    buffers: Params,
    opt_state: Params,
    phi: Params,
    loss_buffers: Params,
    batch: Batch,
    *,
    keep_backward: bool,
) -> tuple[Point, dict[str, Tensor], dict[str, Tensor], Params, Tensor]:
    """Where one base step is taken, still without g; g = J_f^T dM/df; the buffers after the passes, f's and M's; M_phi."""
    x, y = batch
    random = None if keep_backward else problem.random_state()  # a kept backward pass is not run through again
    theta_leaves = leaves(theta)
    inputs = list(theta_leaves.values())
    with problem.train_pass(theta_leaves, buffers, x, Seeded() if keep_backward else None) as (outputs_BC, live):
        random_loss = None if keep_backward else problem.random_state()
        learned_loss, df_BC, along_phi, of_loss = problem.outputs_gradient(phi, loss_buffers, outputs_BC, y)
        kept = None
        if keep_backward:
            kept = along_phi
            df_BC.requires_grad_()
        del along_phi
        found = torch.autograd.grad(outputs_BC, inputs, df_BC, create_graph=keep_backward, allow_unused=True)
    g = with_gradient(theta_leaves, found)
    point = Point(
        theta=theta,
        buffers=buffers,
        opt_state=opt_state,
        loss_buffers=loss_buffers,
        reached=tuple(g),
        g={},
        batch=batch,
        random=random,
        random_loss=random_loss,
        outputs_BC=outputs_BC.detach(),
        along_phi=kept,
        backward=(df_BC, {name: get_gradient_edge(value) for name, value in g.items() if value.requires_grad})
        if keep_backward
        else None,
    )
    return point, {name: value.detach() for name, value in g.items()}, live, of_loss, learned_loss


def through_loss(problem: Problem, phi: Params, point: Point, u_BC: Tensor) -> dict[str, Tensor]:
    """d < dM_phi/df, u > / d phi."""
    along = point.along_phi
    if along is None:
        assert point.outputs_BC is not None
        with problem.replay(point.random_loss):
            _, _, along, _ = problem.outputs_gradient(phi, point.loss_buffers, point.outputs_BC, point.batch[1])
    return along(u_BC)


def _through_update(
    problem: Problem, point: Point, lr: float | Tensor, adjoint: Params, sigma: Params, *, gradient_only: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(dU/dg)^T, (dU/dtheta)^T and (dU/ds)^T of (lambda, sigma): autograd only through the optimizer's arithmetic."""
    g = leaves(point.g)
    theta, state = (point.theta, point.opt_state) if gradient_only else (leaves(point.theta), leaves(point.opt_state))
    moved, after = problem.optimizer.update(theta, dict(g), state, lr)
    pairs = [(value, adjoint[name]) for name, value in moved.items()]
    pairs += [(after[name], value) for name, value in sigma.items()]
    pairs = [(value, seed) for value, seed in pairs if value.requires_grad]
    outputs, seeds = [value for value, _ in pairs], [seed for _, seed in pairs]
    groups: list[Mapping[str, Tensor]] = [g] if gradient_only else [g, theta, state]
    inputs = [value for group in groups for value in group.values()]
    found = iter(torch.autograd.grad(outputs, inputs, seeds, materialize_grads=True))
    parts = [{name: next(found) for name in group} for group in groups]
    return (parts[0], {}, {}) if gradient_only else (parts[0], parts[1], parts[2])
