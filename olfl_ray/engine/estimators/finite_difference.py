"""Approximate meta-gradient by finite differences along w: one more forward pass, and one backward pass per further step."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.named import NamedEstimator
from olfl_ray.engine.estimators.unroll import GradientsAlong, OutputsAlong, Point, unroll
from olfl_ray.engine.optimizers import global_norm
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.engine.state import LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["FiniteDifference", "finite_difference"]

SMALLEST = 0.1
"""Norm of theta below which the difference is not reduced further: a layer may start at zero."""


def finite_difference(
    problem: Problem,
    state: LearnerState,
    lr: float | Tensor,
    train: Sequence[Batch],
    meta: Batch,
    *,
    fresh: bool = False,
) -> StepResult:
    """Arguments and result are those of `Estimator`; the gradient of phi is approximate.

    u = (f(theta + h w) - f(theta)) / h with h |w| = sqrt(machine epsilon) max(|theta|, `SMALLEST`): half of the digits are
    correct in a smooth network, fewer if a ReLU or a maximum switches in between. With several steps, differences of
    gradients approximate the Hessian's products. The error is relative to the result for a random w of the same size, and
    the comparison before the first step limits it (`agreement.LEAST`).
    """
    outputs_along, gradients_along = products()
    return unroll(
        problem,
        state,
        lr,
        train,
        meta,
        fresh=fresh,
        outputs_along=outputs_along,
        gradients_along=gradients_along,
        keep_backward=False,
    )


class FiniteDifference(NamedEstimator):
    """Finite differences along one direction, which are approximate."""

    error = 1e-2
    __call__ = staticmethod(finite_difference)


def products() -> tuple[OutputsAlong, GradientsAlong]:
    """Like `products` of `exact`, by differences."""
    return _outputs, _gradients


def _shifted(theta: Params, w: Params) -> tuple[dict[str, Tensor], Tensor]:
    """theta + h w, and h."""
    info = torch.finfo(next(iter(theta.values())).dtype)
    size = global_norm(theta).clamp(min=SMALLEST)
    h = info.eps**0.5 * size / global_norm(w).clamp(min=info.tiny**0.5)
    return {**theta, **{name: theta[name] + h * value for name, value in w.items()}}, h


@torch.no_grad()
def _outputs(problem: Problem, point: Point, w: Params) -> Tensor:
    x, _ = point.batch
    shifted, h = _shifted(point.theta, w)
    with problem.replay(point.random):
        moved_BC = problem.quiet_forward(shifted, point.buffers, x)
    assert point.outputs_BC is not None
    return (moved_BC - point.outputs_BC) / h


def _gradients(problem: Problem, phi: Params, point: Point, w: Params) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shifted, h = _shifted(point.theta, w)
    here, there = (_gradient(problem, phi, point, theta) for theta in (point.theta, shifted))
    slopes = [(b - a) / h for a, b in zip(here, there, strict=True)]
    found = iter(slopes)
    return {name: next(found) for name in point.theta}, {name: next(found) for name in phi}


def _gradient(problem: Problem, phi: Params, point: Point, theta: Params) -> tuple[Tensor, ...]:
    theta, phi = leaves(theta), leaves(phi)
    with (
        problem.replay(point.random),
        problem.loss_pass(theta, point.buffers, phi, point.loss_buffers, point.batch) as loss,
    ):
        return torch.autograd.grad(loss, [*theta.values(), *phi.values()], materialize_grads=True)
