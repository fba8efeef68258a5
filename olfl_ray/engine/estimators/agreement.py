"""Compare an estimator with a plain loop: one step on M_phi, differentiated twice by torch along a random w."""

# B batch, C outputs

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from olfl_ray.engine.arithmetic import arithmetic
from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.exact import products as exact_products
from olfl_ray.engine.estimators.finite_difference import SMALLEST
from olfl_ray.engine.estimators.finite_difference import products as differences
from olfl_ray.engine.estimators.unroll import Point, take_point, through_loss, through_penalty
from olfl_ray.engine.optimizers import added, with_gradient
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.learnable import Params

__all__ = ["Moment", "Products", "disagreement", "rounding", "size"]

Products = Literal["low", "fast", "finite_difference"]
"""How an estimator computes products along w."""

AGREE = 4.0
"""Largest relative distance that counts as rounding, in units of sqrt(machine epsilon)."""
APPROXIMATE = 300.0
"""The same for finite differences, at least `LEAST`."""
LEAST = 1e-3
NOISE = 100.0
"""A larger distance is still rounding if it is below this many times the effect of moving all parameters by `ULPS`."""
ULPS = 4.0
MOST = 0.05
"""Above this relative distance nothing is rounding: at a discontinuity, moving the parameters has a large effect."""
SEEN_FROM = 8
"""Number of directions in which differences of the outputs are compared."""

CAUSES = {
    "step": "its step on the learned loss differs from a plain loop's: the learned loss reads the module's "
    "parameters or activations, not only its outputs, or an operator has a different gradient here",
    "state": "its buffers differ from a plain loop's: a pass depends on more than its inputs and torch's random numbers",
    "outputs": "its forward pass cuts gradients with no_grad, keeps state in attributes, or draws from a generator that "
    "is not torch's",
    "products": "a second pass of the module or of the learned loss gives a different result (no_grad, state in attributes, "
    "a generator that is not torch's)",
    "loss": "a second pass of the learned loss gives a different result (no_grad, state in attributes, a generator that is "
    "not torch's)",
    "bend": "the learned loss cuts gradients (no_grad, detach), which differences of its gradient do not",
    "curvature": "a second pass gives a different result (no_grad, state in attributes, a generator that is not torch's), "
    "or an operator's backward pass lacks a part in forward mode",
}
"""What is compared -> why it may differ."""

Groups = dict[str, dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The starting point of a base step.

    Args:
        theta: Parameters.
        buffers: Buffers.
        phi: Parameters of the learned loss.
        loss_buffers: Its buffers.
        batch: The train batch.
    """

    theta: Params
    buffers: Params
    phi: Params
    loss_buffers: Params
    batch: Batch


def disagreement(problem: Problem, way: Products | Literal["reverse"], moment: Moment, *, unrolled: bool) -> str | None:
    """Why an estimator's step differs from a plain loop's; None if it agrees up to rounding, or if nothing is finite.

    Both use the same random states and attributes, which are restored afterwards. Everything is computed in the parameters'
    own precision, as TF32 and bfloat16 would hide differences.

    Args:
        problem: Base learner and losses.
        way: How the estimator computes products; reverse over reverse is the plain loop itself, which is only tried.
        moment: The starting point.
        unrolled: Whether several base steps are unrolled: then H w is compared as well.

    Raises:
        RuntimeError: The plain loop, or the mode of differentiation, is not available.
    """
    problem = replace(problem, precision="float32")
    with arithmetic("float32"), problem.unchanged():
        w = {name: torch.randn_like(value) for name, value in moment.theta.items()}
        near = _nudged(moment)
        with problem.unchanged():
            wanted = _plainly(problem, way, moment, w, unrolled)
        if way == "reverse":
            return None
        with problem.unchanged():
            found = _by_way(problem, way, moment, w, unrolled)
        if not all(torch.isfinite(value).all() for group in wanted.values() for value in group.values()):
            return None
        off = [name for name, group in wanted.items() if not _close(found[name], group, _allowed(way, name, group))]
        if not off:
            return None
        with problem.unchanged():
            nearby = _plainly(problem, way, near, w, unrolled)
    for name in off:
        group, other = wanted[name], nearby[name]
        noise = size({key: other[key] - value for key, value in group.items()}) if other.keys() == group.keys() else 0.0
        if not _close(found[name], group, min(NOISE * noise, MOST * size(group))):
            return CAUSES[name]
    return None


def _plainly(problem: Problem, way: str, moment: Moment, w: Params, unrolled: bool) -> Groups:
    """The plain loop's values: torch's backward pass, and a second one through it."""
    theta, phi, (x, y) = leaves(moment.theta), leaves(moment.phi), moment.batch
    with (
        problem.train_pass(theta, moment.buffers, x) as (outputs, live),
        problem.learned_pass(phi, moment.loss_buffers, outputs, y, theta) as (loss, of_loss),
    ):
        found = torch.autograd.grad(loss, list(theta.values()), create_graph=True, allow_unused=True)
        of_outputs = _of_outputs(way, outputs, loss, theta, phi, w, unrolled)
        g = with_gradient(theta, found)
        if unrolled and way != "reverse" and any(value.requires_grad for value in (*live.values(), *of_loss.values())):
            raise RuntimeError("a buffer carries a gradient from one step to the next; detach what is written to it")
        second: dict[str, Tensor] | None = None
        try:
            _check_twice(g)
            inputs = {**_prefixed(phi), **(theta if unrolled else {})}
            second = _along([(value, w[name]) for name, value in g.items()], inputs)
        except RuntimeError:
            if way != "finite_difference":
                raise
            # Finite differences need no second derivative.
    groups: Groups = {"step": _detached(g), "state": _detached({**live, **_prefixed(of_loss)}), **of_outputs}
    if second is not None:
        groups["products"] = {name: second[key] for name, key in zip(phi, _prefixed(phi), strict=True)}
        if unrolled:
            groups["curvature"] = second
    return groups


def _of_outputs(
    way: str, outputs_BC: Tensor, loss: Tensor, theta: Params, phi: Params, w: Params, unrolled: bool
) -> Groups:
    """u = J_f w by torch's graph, independent of the loss: with a loss that is flat here, errors in u would not show.

    Finite differences need no second derivative of f, so none is computed: <v, u> = <J_f^T v, w> in some directions v, and
    the learned loss's part along one of them: in phi and, if differences of its gradient are used, in the outputs.
    """
    if way == "reverse":
        return {}
    parameters = list(theta.values())
    if way == "finite_difference":
        seen, directions = {}, _directions(outputs_BC)
        for index, v_BC in enumerate(directions):
            found = torch.autograd.grad(outputs_BC, parameters, v_BC, retain_graph=True, allow_unused=True)
            parts = [(g * w[name]).sum() for name, g in with_gradient(theta, found).items()]
            seen[str(index)] = torch.stack(parts).sum()
        (df_BC,) = torch.autograd.grad(loss, outputs_BC, create_graph=True, materialize_grads=True)
        inputs = {"outputs": outputs_BC, **_prefixed(phi)}
        along = list(_along([(df_BC, directions[0])], inputs, again=True).values())
        found_by_loss: Groups = {"outputs": seen, "loss": dict(zip(phi, along[1:], strict=True))}
        return {**found_by_loss, "bend": {"outputs": along[0]}} if unrolled else found_by_loss
    df_BC = torch.ones_like(outputs_BC, requires_grad=True)
    g = with_gradient(theta, torch.autograd.grad(outputs_BC, parameters, df_BC, create_graph=True, allow_unused=True))
    _check_twice(g)
    return {"outputs": _along([(value, w[name]) for name, value in g.items()], {"u": df_BC})}


def _along(ends: Iterable[tuple[Tensor, Tensor]], inputs: Params, *, again: bool = False) -> dict[str, Tensor]:
    """The gradient of < ends, their directions > in some inputs, zero if none depends on them; `again` retains the graph."""
    moved = [(value, along) for value, along in ends if value.requires_grad]
    if not moved:
        return {name: torch.zeros_like(value) for name, value in inputs.items()}
    values, seeds = [value for value, _ in moved], [along for _, along in moved]
    found = torch.autograd.grad(values, list(inputs.values()), seeds, retain_graph=again, materialize_grads=True)
    return dict(zip(inputs, found, strict=True))


def _directions(outputs_BC: Tensor) -> list[Tensor]:
    """Directions that depend only on the shape; drawn on the CPU, from a separate generator."""
    draws = torch.Generator().manual_seed(0)
    shape, dtype = outputs_BC.shape, outputs_BC.dtype
    return [torch.randn(shape, generator=draws, dtype=dtype).to(outputs_BC.device) for _ in range(SEEN_FROM)]


def _check_twice(g: Params) -> None:
    """Raise for `once_differentiable` functions: autograd prunes the node that would raise in the second backward pass."""
    nodes, seen = [value.grad_fn for value in g.values()], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("one of its functions can be differentiated only once (once_differentiable)")
        nodes += [after for after, _ in node.next_functions]


def _by_way(problem: Problem, way: Products, moment: Moment, w: Params, unrolled: bool) -> Groups:
    """The estimator's values, for one step and, if several are unrolled, for those after the first."""
    phi = moment.phi
    outputs_along, gradients_along = differences() if way == "finite_difference" else exact_products(way)
    no_state: Params = {}
    parts = problem, moment.theta, moment.buffers, no_state, phi, moment.loss_buffers, moment.batch
    groups: Groups = {}
    if unrolled:
        with problem.unchanged():
            point, g, *_ = take_point(*parts, keep_backward=False)
            curved, along_phi = gradients_along(problem, phi, replace(point, g=g), {name: w[name] for name in g})
        groups["curvature"] = {**curved, **_prefixed(along_phi)}
    point, g, live, of_loss, _ = take_point(*parts, keep_backward=way == "fast")
    u_BC = outputs_along(problem, point, {name: w[name] for name in g})
    groups["outputs"], groups["products"] = {"u": u_BC}, through_loss(problem, phi, point, u_BC)
    if problem.hooks.penalty:
        groups["products"] = added(groups["products"], through_penalty(problem, phi, point, w))
    if way == "finite_difference":
        seen = _directions(u_BC)
        groups["outputs"] = {str(name): (v_BC.conj() * u_BC).sum().real for name, v_BC in enumerate(seen)}
        groups["loss"] = through_loss(problem, phi, point, seen[0])
        groups["bend"] = {"outputs": _bend(problem, phi, point, seen[0])}
    groups["step"], groups["state"] = g, _detached({**live, **_prefixed(of_loss)})
    if way == "finite_difference" and not _repeats(problem, moment):
        groups["state"] = {}
    return groups


def _bend(problem: Problem, phi: Params, point: Point, v_BC: Tensor) -> Tensor:
    """The difference of dM_phi/df along v, in the outputs."""
    f_BC, (_, y) = point.outputs_BC, point.batch
    assert f_BC is not None
    h = torch.finfo(f_BC.dtype).eps ** 0.5 * f_BC.norm().clamp(min=SMALLEST) / v_BC.norm()
    ends = []
    for at_BC in (f_BC, f_BC + h * v_BC):
        with problem.replay(point.random_loss):
            ends.append(problem.outputs_gradient(phi, point.loss_buffers, at_BC, y)[1])
    bend_BC: Tensor = (ends[1] - ends[0]) / h
    return bend_BC


@torch.no_grad()
def _repeats(problem: Problem, moment: Moment) -> bool:
    """Whether two passes at the same theta give the same outputs: otherwise a difference would divide the change by h."""
    x, _ = moment.batch
    random = problem.random_state()
    one = problem.quiet_forward(moment.theta, moment.buffers, x)
    with problem.replay(random):
        other = problem.quiet_forward(moment.theta, moment.buffers, x)
    return bool((one - other).norm() <= AGREE * torch.finfo(one.dtype).eps * one.norm())


def rounding(wanted: Params) -> float:
    """The largest distance from some tensors that is taken for rounding."""
    eps = _eps(wanted)
    allowed: float = AGREE * eps**0.5 * size(wanted) + eps**1.5
    return allowed


def _allowed(way: Products, group: str, wanted: Params) -> float:
    if way != "finite_difference" or group not in ("outputs", "products", "curvature", "bend"):
        return rounding(wanted)
    eps = _eps(wanted)
    allowed: float = max(APPROXIMATE * eps**0.5, LEAST) * size(wanted) + eps**1.5
    return allowed


def _eps(tensors: Params) -> float:
    """Machine epsilon of the coarsest dtype, or of autocast's, if a user's own loop has enabled it."""
    kinds = [value.dtype for value in tensors.values() if value.is_floating_point() or value.is_complex()]
    for device in {value.device.type for value in tensors.values()}:
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            kinds.append(torch.get_autocast_dtype(device))
    return max([torch.finfo(kind).eps for kind in kinds], default=0.0)


def size(tensors: Params) -> float:
    """The norm of all of them."""
    parts = [value.double() if not value.is_complex() else value for value in tensors.values()]
    return float(torch.stack([part.norm().cpu() for part in parts]).norm()) if parts else 0.0


def _close(found: Params, wanted: Params, allowed: float) -> bool:
    if found.keys() != wanted.keys():
        return False
    return size({name: found[name] - value for name, value in wanted.items()}) <= allowed


def _nudged(moment: Moment) -> Moment:
    def nudge(tensors: Params) -> dict[str, Tensor]:
        return {
            name: value * (1 + ULPS * torch.finfo(value.dtype).eps * torch.randn_like(value).sign())
            for name, value in tensors.items()
        }

    return replace(moment, theta=nudge(moment.theta), phi=nudge(moment.phi))


def _prefixed(tensors: Params) -> dict[str, Tensor]:
    return {f"M_phi: {name}": value for name, value in tensors.items()}


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
