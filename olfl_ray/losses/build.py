"""From settings to a learned loss, seeded; built-in names and a user's builder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.chosen import SECTION, loss_settings, named_loss
from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.losses.learned_loss import LearnedLoss
from olfl_ray.losses.roles import check_order
from olfl_ray.memory import refuse_too_large
from olfl_ray.spec import LearnedLossSpec, checked_options
from olfl_ray.tasks import task_of

__all__ = ["build_loss", "bytes_of"]

POINTS = 41
"""Predictions of the grid on which a learned loss begins, for each target."""
PHI_COPIES = 4
"""How often a meta-update holds phi at least: itself, its gradient, and the two moments of Adam."""


def build_loss(spec: LearnedLossSpec, kind: str, *, seed: int) -> LearnedLoss:
    """Build M_phi with initial weights drawn from `seed`; the global random state is not changed.

    Args:
        spec: Its name and settings. `package.module:builder` is a subclass of `ElementwiseLoss`, or is called with the
            settings and gives an `nn.Module` l_phi(output, target).
        kind: What goes into it.
        seed: Seed of the initial weights.

    Raises:
        SpecError: A setting breaks a rule, a user's builder does not give an elementwise module that can be learned, or no
            memory holds phi.
    """
    spec = LearnedLossSpec.model_validate(loss_settings(spec.model_dump(mode="json", by_alias=True)))
    needed = PHI_COPIES * bytes_of(spec)
    if needed:
        decides = getattr(named_loss(spec.name), "sized_by", "")
        what = f" with {decides} {spec.options[decides]}" if decides else ""
        refuse_too_large(needed, f"the learned loss {spec.name}{what}", f"{SECTION}.{decides}" if decides else SECTION)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        network = _module(spec, kind)
        if isinstance(network, ElementwiseLoss):
            with torch.enable_grad():
                network.begin(*torch.cartesian_prod(*task_of(kind, "loss").grid(POINTS)).unbind(1))
        return LearnedLoss(network, kind, spec.reduction, spec)


def bytes_of(spec: LearnedLossSpec) -> int:
    """Bytes of a learned loss's parameters, counted without making any; 0 where its class does not count them."""
    kind = named_loss(spec.name)
    if not (isinstance(kind, type) and issubclass(kind, ElementwiseLoss)):
        return 0
    return (
        torch.finfo(torch.float32).bits // 8 * kind.parameters_of(checked_options(kind.Config, spec.options, SECTION))
    )


def _called(spec: LearnedLossSpec) -> Any:
    builder: Any = named_loss(spec.name)
    if isinstance(builder, type) and issubclass(builder, ElementwiseLoss):
        return builder(checked_options(builder.Config, spec.options, SECTION))
    return builder(**spec.options)


def _module(spec: LearnedLossSpec, kind: str) -> nn.Module:
    if ":" not in spec.name:
        built_in: nn.Module = _called(spec)
        return built_in
    try:
        network = _called(spec)
    except SpecError:
        raise
    except (Exception, SystemExit) as error:
        raise SpecError(
            "loss.name", f"{spec.name!r} raised {type(error).__name__}: {error}; correct the builder"
        ) from error
    if not isinstance(network, nn.Module):
        raise SpecError("loss.name", f"{spec.name!r} returned a {type(network).__name__}; it must return an nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise SpecError("loss.name", f"{spec.name!r} returned a module without parameters to learn; give it some")
    check_order(network.forward, spec.name, "loss.name")
    _try(spec.name, network, kind)
    return network


@torch.enable_grad()
def _try(name: str, network: nn.Module, kind: str) -> None:
    """Call a user's network on a few pairs such as training gives it.

    Raises:
        SpecError: It can't be called, is not elementwise or not finite, or lets no gradient through.
    """

    def refused(problem: str) -> SpecError:
        return SpecError("loss.name", f"{name!r} {problem}")

    task = task_of(kind, "loss.name")
    output_BC, target_BC = task.pairs(torch.randn(3, 2), task.examples(3, 2))
    output_BC.requires_grad_()
    try:
        value_BC = network(output_BC, target_BC)
        each = [network(*pair) for pair in zip(output_BC.reshape(-1, 1), target_BC.reshape(-1, 1), strict=True)]
    except (Exception, SystemExit) as error:
        raise refused(f"can't be called as l_phi(output, target): {type(error).__name__}: {error}") from error
    for value, wanted in [(value_BC, (3, 2)), *((one, (1,)) for one in each)]:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != wanted:
            raise refused(f"must keep the shape {wanted} of its inputs, but returned {shape}")
    value_N = value_BC.detach().flatten()
    if not torch.isfinite(value_N).all():
        bad = int(torch.isfinite(value_N).logical_not().nonzero()[0])
        target, output = target_BC.flatten()[bad].item(), output_BC.flatten()[bad].item()
        raise refused(f"must be finite, but l_phi({output:.3g}, {target:.3g}) is {value_N[bad].item()}; correct it")
    if not torch.allclose(value_N, torch.cat(each).detach(), rtol=1e-3, atol=1e-5):
        raise refused("must be elementwise, but a pair's loss changes with the others in its batch; take each alone")
    try:
        slope_BC = _slope(value_BC, output_BC)
        learned = slope_BC is not None and any(
            _slope(slope_BC, parameter) is not None for parameter in network.parameters() if parameter.requires_grad
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise refused(f"can't be differentiated twice ({reason}); use operators that can") from error
    if slope_BC is None:
        raise refused("has no gradient in the output, its first argument; do not detach, round or compare it")
    if not torch.isfinite(slope_BC).all():
        raise refused("must have a finite gradient in the output, its first argument; correct its formula")
    if not learned:
        raise refused("has a gradient in the output that no parameter changes, so none can be learned; correct it")


def _slope(value: Tensor, of: Tensor) -> Tensor | None:
    """d sum(value) / d of; None where no way leads from one to the other."""
    if not value.requires_grad:
        return None
    (found,) = torch.autograd.grad(value.sum(), of, create_graph=True, allow_unused=True)
    return found
