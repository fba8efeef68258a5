"""Exact one-step meta-gradient by a forward-mode product: no second backward pass through f (METHOD.md)."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from olfl_ray.engine.optimizers import Params
from olfl_ray.engine.problem import Batch, Problem
from olfl_ray.engine.result import StepResult

__all__ = ["exact"]


def exact(
    problem: Problem,
    theta: Params,
    buffers: Params,
    opt_state: Params,
    phi: Params,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
) -> StepResult:
    """As `reverse` for one base step, with the same value to rounding.

    v = grad L_T at theta'
    w = (dU/dg)^T v
    u = J_f(theta; x) w
    dL_T/dphi = d/dphi < dM_phi/df (y, f(x)), u >
    """
    assert problem.learned is not None
    assert len(train) == 1
    (x, y), names = train[0], list(theta)
    before = torch.get_rng_state() if problem.draws_random else None

    # Base step: g = J_f^T dM/df; only the small graph from phi to dM/df is kept.
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
    outputs_BC, live = problem.train_forward(leaves, buffers, x)
    f_BC = outputs_BC.detach().requires_grad_()
    learned_loss = functional_call(problem.learned, phi, (f_BC, y))
    (df_BC,) = torch.autograd.grad(learned_loss, f_BC, create_graph=True)
    g = dict(zip(names, torch.autograd.grad(outputs_BC, list(leaves.values()), df_BC.detach()), strict=True))
    with torch.no_grad():
        theta_next, state = problem.optimizer.update(theta, g, opt_state, lr)
        task_loss = problem.task_loss(f_BC, y)

    # v = grad L_T at theta'
    ahead = {name: value.detach().requires_grad_() for name, value in theta_next.items()}
    meta_loss = problem.task_loss(problem.quiet_forward(ahead, live, meta[0]), meta[1])
    v = dict(zip(names, torch.autograd.grad(meta_loss, list(ahead.values())), strict=True))

    w = problem.optimizer.pullback(v, lr)
    if w is None:
        g = {name: value.requires_grad_() for name, value in g.items()}
        moved, _ = problem.optimizer.update(theta, g, opt_state, lr)
        w = dict(zip(names, torch.autograd.grad(list(moved.values()), list(g.values()), list(v.values())), strict=True))

    # u = J_f(theta; x) w, with the train pass's own batch statistics and dropout mask.
    after = torch.get_rng_state() if before is not None else None
    if before is not None:
        torch.set_rng_state(before)
    with torch.no_grad(), forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(theta[name], w[name]) for name in names}
        u_BC = forward_ad.unpack_dual(problem.quiet_forward(dual, buffers, x)).tangent
    if after is not None:
        torch.set_rng_state(after)

    # A bias of the last layer does not move the gradient of M_phi: its derivative is 0.
    phi_grad = torch.autograd.grad((df_BC * u_BC).sum(), list(phi.values()), materialize_grads=True)
    return StepResult(
        theta=theta_next,
        buffers={name: value.detach() for name, value in live.items()},
        opt_state=state,
        phi_grad=dict(zip(phi, phi_grad, strict=True)),
        base_loss=learned_loss.detach(),
        task_loss=task_loss,
        meta_loss=meta_loss.detach(),
    )
