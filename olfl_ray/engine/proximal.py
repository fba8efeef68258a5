"""The proximal step of a group penalty: argmin_w |w - u|_D^2 / 2 + kappa sum_g |w_g|, with exact zeros and exact derivatives."""

# G groups, M weights of a group

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from olfl_ray.engine.groups import group_norms, group_weight
from olfl_ray.learnable import Params

__all__ = ["proximal", "shrunk", "shrunk_in_metric"]

MOST = 12
"""Newton steps of the metric form at most; four suffice for a metric that spans eight orders of magnitude."""


def proximal(
    theta: Params, layers: Sequence[str], step: float | Tensor, strength: float | Tensor, metric: Params
) -> dict[str, Tensor]:
    """theta after the proximal step of strength * Omega(theta).

    Args:
        theta: Parameters by name, after the optimizer's own step (u).
        layers: Names of those that have groups (`olfl_ray.engine.groups`).
        step: Step length alpha.
        strength: lambda, at least 0.
        metric: D by name, the diagonal in which the optimizer's own step descends; a name that it lacks has D = 1.
    """
    found = dict(theta)
    for name in layers:
        u = found[name]
        kappa = step * strength * group_weight(u)
        found[name] = shrunk_in_metric(u, metric[name], kappa) if name in metric else shrunk(u, kappa)
    return found


def shrunk(u: Tensor, kappa: float | Tensor) -> Tensor:
    """w_g = u_g max(0, 1 - kappa / |u_g|): the step with D = 1.

    At kappa = 0 it is u, bit for bit. A dead group (|u_g| <= kappa) is exactly 0, and so are its derivatives.

    Args:
        u: Weights (O, I, ...); group i is u[:, i].
        kappa: At least 0.
    """
    if not isinstance(kappa, Tensor) and kappa == 0:
        return u
    norm = group_norms(u)
    dead = _dead(norm, kappa)
    scale = 1 - kappa / torch.where(dead | (norm == 0), torch.ones_like(norm), norm)
    shape = (1, -1, *([1] * (u.dim() - 2)))
    return torch.where(dead.reshape(shape), torch.zeros_like(u), u * scale.reshape(shape))


def shrunk_in_metric(u: Tensor, metric: Tensor, kappa: float | Tensor) -> Tensor:
    """The same in the metric D, a positive diagonal: w = u t / (t + kappa / D), where t = |w_g| solves

        h(t) = | u / (t + kappa / D) | = 1

    A group is dead if |D u_g| <= kappa. 1 / h is concave and increasing, so Newton's method on it approaches the root from below
    without a safeguard. The derivatives are those of the solution (implicit function theorem), not of the iterations.

    Args:
        u: Weights (O, I, ...); group i is u[:, i].
        metric: D, of the same shape.
        kappa: At least 0.
    """
    if not isinstance(kappa, Tensor) and kappa == 0:
        return u
    u_GM, metric_GM = u.transpose(0, 1).flatten(1), metric.transpose(0, 1).flatten(1)
    dead_G = _dead((metric_GM * u_GM).norm(dim=1), kappa)
    flat_G = u_GM.detach().norm(dim=1) == 0  # also of weights whose squares underflow
    apart_G1 = (dead_G | flat_G)[:, None]  # without a root; any t gives u, and no derivative is infinite
    safe_GM = torch.where(apart_G1, torch.ones_like(u_GM), u_GM)
    offset_GM = kappa / torch.where(apart_G1, torch.ones_like(metric_GM), metric_GM)
    with torch.no_grad():
        start_G1 = safe_GM.norm(dim=1, keepdim=True)
        t_G1, slope_G1 = _root_of(safe_GM.detach(), offset_GM.detach(), start_G1)
    # One more step, differentiable: its derivatives are those of the root.
    t_G1 = (t_G1 + ((safe_GM / (t_G1 + offset_GM)).square().sum(1, keepdim=True) - 1) / (2 * slope_G1)).clamp_min(0)
    w_GM = torch.where(dead_G[:, None], torch.zeros_like(u_GM), u_GM * (t_G1 / (t_G1 + offset_GM)))
    return w_GM.reshape(u.shape[1], u.shape[0], *u.shape[2:]).transpose(0, 1).contiguous()


def _dead(norm: Tensor, kappa: float | Tensor) -> Tensor:
    """Which groups become 0; none where nothing is shrunk, and none with NaN, so that a diverged weight stays visible."""
    dead: Tensor = norm <= kappa
    return dead & (kappa > 0)


def _root_of(u_GM: Tensor, offset_GM: Tensor, norm_G1: Tensor) -> tuple[Tensor, Tensor]:
    """t and sum u^2 / (t + offset)^3 at it."""
    t_G1 = (norm_G1 - offset_GM.amax(1, keepdim=True)).clamp_min(0)
    for _ in range(MOST):
        over_GM = u_GM / (t_G1 + offset_GM)
        h_G1 = over_GM.norm(dim=1, keepdim=True)
        slope_G1 = (over_GM.square() / (t_G1 + offset_GM)).sum(1, keepdim=True)
        next_G1 = torch.maximum(t_G1, t_G1 + h_G1.square() * (h_G1 - 1) / slope_G1)
        done = not u_GM.is_cuda and torch.equal(next_G1, t_G1)  # a GPU would have to wait for the answer
        t_G1 = next_G1
        if done:
            break
    over_GM = u_GM / (t_G1 + offset_GM)
    return t_G1, (over_GM.square() / (t_G1 + offset_GM)).sum(1, keepdim=True)
