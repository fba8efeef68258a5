"""Base steps forward, then their adjoints backward: d L_T / d phi, storing theta, g and the optimizer's state of each step."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.drawing import RandomStates
from olfl_ray.engine.kernels.seeded import Seeded
from olfl_ray.engine.optimizers import added, with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = [
    "Back",
    "GradientsAlong",
    "OutputsAlong",
    "Point",
    "take_point",
    "through_loss",
    "through_penalty",
    "through_update",
    "unroll",
]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The point of one base step: what its derivatives need, without activations of the network.

    Args:
        theta: Parameters before the step.
        buffers: Buffers before the step.
        opt_state: State of the base optimizer before the step.
        loss_buffers: Buffers of the learnable before the step.
        reached: Names of the parameters that have a gradient; the others do not change.
        g: The gradient that theta follows, for those; empty if the update is linear in it and no derivative needs it.
        batch: The train batch.
        random: Random states before the forward pass; None if it draws nothing.
        random_loss: Random states before the learned loss.
        outputs_BC: f_theta(x), stored only for the first step.
        along_phi: From u to d <dM_phi/df, u> / d phi, stored only for the first step and during its backward pass: what it
            holds, the loss network's units for every output of the batch, is cheap to recompute.
        backward: df and, if the graph is retained, the ends of g as a function of it, if g depends on it.
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
    state: LearnerState,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
    *,
    fresh: bool,
    outputs_along: OutputsAlong,
    gradients_along: GradientsAlong,
    keep_backward: bool,
) -> StepResult:
    """Arguments and result are those of `Estimator`; the last arguments define how derivatives along w are computed.

    With lambda and sigma the adjoints of theta and of the optimizer's state, from lambda = grad L_T at the last theta,
    sigma = 0, a step backward is (the idea: MixFlow-MG, arXiv 2505.00793; one step: docs/method.md)

        w                = (dU/dg)^T (lambda, sigma)
        dL_T/dphi       += d <g, w> / d phi + (dU/dphi)^T (lambda, sigma)
        lambda, sigma    = (dU/d(theta, s))^T (lambda, sigma) + (H w, 0)

    The first step needs no lambda, and for a learned loss d <g, w> / d phi = d/dphi < dM_phi/df, u > with u = J_f w: no
    Hessian. If phi determines where training starts, lambda is needed there too: dL_T/dphi += (dtheta_0/dphi)^T lambda.
    """
    phi, hooks = state.phi, problem.hooks
    starts = fresh and hooks.start
    live: Params = state.buffers
    of_loss: Params = state.loss_buffers or problem.loss_buffers()
    begins = leaves(phi) if starts else phi
    begun = problem.starting(begins, of_loss, state.theta) if starts else state.theta
    theta: Params = {name: value.detach() for name, value in begun.items()} if starts else begun
    opt_state: Params = state.opt_state
    points: list[Point] = []
    short = len(train) == 1 and not starts and not hooks.update
    scale = problem.optimizer.gradient_factor(lr) if short else None
    base_loss = task_loss = torch.zeros(())
    for batch in train:
        keep = keep_backward and hooks.loss and not starts and not points
        point, g, live, after, base_loss = take_point(
            problem, theta, live, opt_state, phi, of_loss, batch, keep_backward=keep
        )
        assert point.outputs_BC is not None
        with torch.no_grad():
            task_loss = problem.task_loss(point.outputs_BC, batch[1])
            point = replace(point, g=dict(g) if scale is None else {}, outputs_BC=None if points else point.outputs_BC)
            theta, opt_state = problem.update(phi, of_loss, theta, g, opt_state, lr)
        of_loss = after
        points.append(point)
    ahead = leaves(theta)
    with problem.quiet_pass(ahead, live, meta[0]) as outputs_BC:
        meta_loss = problem.task_loss(outputs_BC, meta[1])
        found = torch.autograd.grad(meta_loss, list(ahead.values()), materialize_grads=True)
    adjoint: Params = dict(zip(ahead, found, strict=True))
    del found
    phi_grad: dict[str, Tensor] = {}
    sigma: Params = {}
    for point in reversed(points if starts else points[1:]):
        back = through_update(problem, phi, point, lr, adjoint, sigma)
        curved, along_phi = gradients_along(problem, phi, point, back.w)
        adjoint, sigma = {name: value + curved[name] for name, value in back.theta.items()}, back.state
        phi_grad = added(added(phi_grad, along_phi), back.phi)
    if starts:
        phi_grad = added(phi_grad, _through_start(begins, begun, adjoint))
    else:
        first = points[0]
        w: Params = {name: adjoint[name] for name in first.reached}
        if scale is None:
            back = through_update(problem, phi, first, lr, adjoint, sigma, first=True)
            w, phi_grad = back.w, added(phi_grad, back.phi)
        if hooks.loss:
            u_BC = outputs_along(problem, first, w)
            if scale is not None:
                u_BC = u_BC * scale
            phi_grad = added(phi_grad, through_loss(problem, phi, first, u_BC))
        if hooks.penalty:
            scaled = w if scale is None else {name: value * scale for name, value in w.items()}
            phi_grad = added(phi_grad, through_penalty(problem, phi, first, scaled))
    return StepResult(
        theta=dict(theta),
        buffers={name: value.detach() for name, value in live.items()},
        opt_state=dict(opt_state),
        loss_buffers=dict(of_loss),
        phi_grad={name: phi_grad[name] if name in phi_grad else torch.zeros_like(value) for name, value in phi.items()},
        base_loss=base_loss.detach(),
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
    """The point of one base step, without g; g; the buffers after the passes, f's and the learnable's; the loss."""
    x, y = batch
    random = None if keep_backward else problem.random_state()  # a retained backward pass is not run again
    theta_leaves = leaves(theta)
    inputs = list(theta_leaves.values())
    with problem.train_pass(theta_leaves, buffers, x, Seeded() if keep_backward else None) as (outputs_BC, live):
        random_loss = None if keep_backward else problem.random_state()
        base_loss, df_BC, along_phi, of_loss = problem.outputs_gradient(phi, loss_buffers, outputs_BC, y)
        kept = None
        if keep_backward:
            kept = along_phi
            df_BC.requires_grad_()
        del along_phi
        found = torch.autograd.grad(outputs_BC, inputs, df_BC, create_graph=keep_backward, allow_unused=True)
    g = with_gradient(theta_leaves, found)
    full: Params = {name: value.detach() for name, value in g.items()}
    if problem.hooks.penalty:
        penalty, also = problem.penalty_gradient(phi, loss_buffers, theta_leaves)
        base_loss, full = base_loss + penalty, added(full, also)
    point = Point(
        theta=theta,
        buffers=buffers,
        opt_state=opt_state,
        loss_buffers=loss_buffers,
        reached=tuple(full),
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
    return point, dict(full), live, of_loss, base_loss


def through_loss(problem: Problem, phi: Params, point: Point, u_BC: Tensor) -> dict[str, Tensor]:
    """d < dM_phi/df, u > / d phi."""
    along = point.along_phi
    if along is None:
        assert point.outputs_BC is not None
        with problem.replay(point.random_loss):
            _, _, along, _ = problem.outputs_gradient(phi, point.loss_buffers, point.outputs_BC, point.batch[1])
    return along(u_BC)


def through_penalty(problem: Problem, phi: Params, point: Point, w: Params) -> dict[str, Tensor]:
    """d < grad R_phi(theta), w > / d phi, by two traversals of the penalty alone."""
    theta, at = leaves(point.theta), leaves(phi)
    with problem.loss_placed(at, point.loss_buffers):
        _, g = problem.penalty_gradient(at, point.loss_buffers, theta, create_graph=True)
        pairs = [(value, w[name]) for name, value in g.items() if value.requires_grad]
        return _gradients([value for value, _ in pairs], at, [seed for _, seed in pairs])


def _through_start(phi: Params, begun: Params, adjoint: Params) -> dict[str, Tensor]:
    """(dtheta_0/dphi)^T lambda."""
    pairs = [(value, adjoint[name]) for name, value in begun.items() if value.requires_grad]
    return _gradients([value for value, _ in pairs], phi, [seed for _, seed in pairs])


def _gradients(of: Sequence[Tensor], leaf: Params, seeds: Sequence[Tensor]) -> dict[str, Tensor]:
    if not of:
        return {name: torch.zeros_like(value) for name, value in leaf.items()}
    found = torch.autograd.grad(list(of), list(leaf.values()), list(seeds), materialize_grads=True)
    return dict(zip(leaf, found, strict=True))


@dataclass(frozen=True, kw_only=True)
class Back:
    """(lambda, sigma) pulled back through one update: to g (w), to theta, the optimizer's state, and phi."""

    w: dict[str, Tensor]
    theta: dict[str, Tensor]
    state: dict[str, Tensor]
    phi: dict[str, Tensor]


def through_update(
    problem: Problem,
    phi: Params,
    point: Point,
    lr: float | Tensor,
    adjoint: Params,
    sigma: Params,
    *,
    first: bool = False,
) -> Back:
    """Autograd only through the arithmetic of the update; at the first step, only to g and phi.

    Args:
        problem: Base learner, learnable, losses and optimizer.
        phi: Parameters of the learnable.
        point: The point of the step, with g.
        lr: Base learning rate.
        adjoint: lambda, the adjoint of theta after the step.
        sigma: Adjoint of the optimizer's state after the step.
        first: Whether it is the first step.
    """
    g, at = leaves(point.g), leaves(phi) if problem.hooks.update else {}
    theta, state = (point.theta, point.opt_state) if first else (leaves(point.theta), leaves(point.opt_state))
    placed: Params = at or phi
    moved, after = problem.update(placed, point.loss_buffers, theta, dict(g), state, lr)
    pairs = [(value, adjoint[name]) for name, value in moved.items()]
    pairs += [(after[name], value) for name, value in sigma.items()]
    pairs = [(value, seed) for value, seed in pairs if value.requires_grad]
    outputs, seeds = [value for value, _ in pairs], [seed for _, seed in pairs]
    groups: list[Mapping[str, Tensor]] = [g, {}, {}, at] if first else [g, theta, state, at]
    inputs = [value for group in groups for value in group.values()]
    with problem.loss_placed(placed, point.loss_buffers):
        found = iter(torch.autograd.grad(outputs, inputs, seeds, materialize_grads=True))
    of_g, of_theta, of_state, of_phi = ({name: next(found) for name in group} for group in groups)
    return Back(w=of_g, theta=of_theta, state=of_state, phi=of_phi)
