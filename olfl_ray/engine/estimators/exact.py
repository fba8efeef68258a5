"""Exact meta-gradient by products along w: no second backward pass through f, no unrolled graph (docs/method.md)."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.named import NamedEstimator
from olfl_ray.engine.estimators.unroll import GradientsAlong, OutputsAlong, Point, unroll
from olfl_ray.engine.kernels.tangents import Tangents
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["Exact", "exact", "products"]


def exact(
    problem: Problem,
    state: LearnerState,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
    *,
    fresh: bool = False,
    memory: Literal["low", "fast"] = "fast",
) -> StepResult:
    """Arguments and result are those of `Estimator`; the values equal those of `reverse` up to rounding.

    Args:
        problem: Base learner, learnable, losses and optimizer.
        state: The learner before the steps.
        lr: Base learning rate alpha.
        train: One batch per base step.
        meta: The batch of the outer objective.
        fresh: Whether the learnable's `start` comes first.
        memory: low: products along w in forward mode, which recomputes the activations and frees them as it goes (one
            step: 9 passes where a plain step takes 3). fast: g is linear in df, so u is the derivative of <g, w> in df:
            autograd traverses the first step's retained backward pass once more (8 passes; about twice the activations'
            memory); with several steps, each is differentiated twice in turn.
    """
    outputs_along, gradients_along = products(memory)
    return unroll(
        problem,
        state,
        lr,
        train,
        meta,
        fresh=fresh,
        outputs_along=outputs_along,
        gradients_along=gradients_along,
        keep_backward=memory == "fast",
    )


class Exact(NamedEstimator):
    """Products along one direction, exact to rounding."""

    __call__ = staticmethod(exact)


def products(memory: Literal["low", "fast"]) -> tuple[OutputsAlong, GradientsAlong]:
    """How u is computed, and how H w and d <g, w> / d phi are."""
    return (_forward_mode, _forward_over_reverse) if memory == "low" else (_transposed_twice, _reverse_twice)


def _forward_mode(problem: Problem, point: Point, w: Params) -> Tensor:
    """u = J_f w with the train pass's own batch statistics and dropout mask."""
    x, _ = point.batch
    with problem.replay(point.random), torch.no_grad(), forward_ad.dual_level(), Tangents():
        dual = {**point.theta, **{name: forward_ad.make_dual(point.theta[name], w[name]) for name in w}}
        output_BC, u_BC = forward_ad.unpack_dual(problem.quiet_forward(dual, point.buffers, x))
    return torch.zeros_like(output_BC) if u_BC is None else u_BC


def _transposed_twice(problem: Problem, point: Point, w: Params) -> Tensor:
    """u = d <g, w> / d df, where g = J_f^T df."""
    assert point.backward is not None
    df_BC, edges = point.backward
    ends, seeds = list(edges.values()), [w[name] for name in edges]
    # Nothing is recomputed here, so theta need not be in the module: g's own graph has the saved tensors.
    (u_BC,) = torch.autograd.grad(ends, df_BC, seeds, materialize_grads=True)
    return u_BC


def _forward_over_reverse(
    problem: Problem, phi: Params, point: Point, w: Params
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tangent of grad_(theta, phi) M_phi along (w, 0): H w, and d <g, w> / d phi."""
    theta_leaves, phi_leaves = leaves(point.theta), leaves(phi)
    inputs = [*theta_leaves.values(), *phi_leaves.values()]
    with problem.replay(point.random), forward_ad.dual_level():
        dual = {**theta_leaves, **{name: forward_ad.make_dual(theta_leaves[name], w[name]) for name in w}}
        with problem.loss_pass(dual, point.buffers, phi_leaves, point.loss_buffers, point.batch) as loss:
            grads = torch.autograd.grad(loss, inputs, materialize_grads=True)
        tangents = [forward_ad.unpack_dual(grad).tangent for grad in grads]
    found = iter(
        torch.zeros_like(value) if tangent is None else tangent.detach()
        for value, tangent in zip(inputs, tangents, strict=True)
    )
    return {name: next(found) for name in theta_leaves}, {name: next(found) for name in phi_leaves}


def _reverse_twice(
    problem: Problem, phi: Params, point: Point, w: Params
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same as the gradient of <g, w> in (theta, phi)."""
    theta_leaves, phi_leaves = leaves(point.theta), leaves(phi)
    inputs = [*theta_leaves.values(), *phi_leaves.values()]
    with (
        problem.replay(point.random),
        problem.loss_pass(theta_leaves, point.buffers, phi_leaves, point.loss_buffers, point.batch) as loss,
    ):
        g = torch.autograd.grad(loss, [theta_leaves[name] for name in w], create_graph=True)
        reached = [(value, w[name]) for name, value in zip(w, g, strict=True) if value.requires_grad]
        outputs, seeds = [value for value, _ in reached], [seed for _, seed in reached]
        found = iter(torch.autograd.grad(outputs, inputs, seeds, materialize_grads=True))
    return {name: next(found) for name in theta_leaves}, {name: next(found) for name in phi_leaves}
