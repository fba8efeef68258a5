"""From settings to a learned loss, seeded; built-in names and a user's builder."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.activation import SmoothLeakyReLU
from olfl_ray.losses.learned import LearnedLoss, LossNetwork
from olfl_ray.losses.roles import check_order
from olfl_ray.memory import refuse_too_large
from olfl_ray.plugins import load_builder
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.tasks import task_of

__all__ = ["build_loss", "bytes_of"]

ML3_HIDDEN = (50, 50)
"""Units of ML3's hidden layers."""
PHI_COPIES = 4
"""How often a meta-update holds phi at least: itself, its gradient, and the two moments of Adam."""


def build_loss(spec: LearnedLossSpec, kind: str, *, seed: int) -> LearnedLoss:
    """Build M_phi with initial weights drawn from `seed`; the global random state is not changed.

    Args:
        spec: Settings. `package.module:builder` is called with the options and gives an `nn.Module` l_phi(output, target).
        kind: What goes into the loss network.
        seed: Seed of the initial weights.

    Raises:
        SpecError: A user's builder does not give an elementwise module that can be learned, or no memory holds phi.
    """
    refuse_too_large(
        PHI_COPIES * bytes_of(spec), f"a loss network with hidden layers {list(spec.hidden)}", "loss.hidden"
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        return LearnedLoss(_network(spec, kind), kind, spec.reduction, spec)


def bytes_of(spec: LearnedLossSpec) -> int:
    """Bytes of a built-in loss network's parameters, counted without making any; 0 for a user's own."""
    if ":" in spec.name:
        return 0
    hidden, bias = (spec.hidden, spec.bias) if spec.name == "mlp" else (ML3_HIDDEN, False)
    sizes = itertools.pairwise([2, *hidden, 1])
    return torch.finfo(torch.float32).bits // 8 * sum((inputs + bias) * outputs for inputs, outputs in sizes)


def _network(spec: LearnedLossSpec, kind: str) -> nn.Module:
    if spec.name == "mlp":
        return LossNetwork(
            spec.hidden,
            _activation(spec.activation),
            softplus_output=spec.output == "softplus",
            bias=spec.bias,
            init=spec.init,
        )
    if spec.name == "ml3":
        return LossNetwork(ML3_HIDDEN, nn.ReLU(), softplus_output=True, bias=False, init=spec.init)
    network = _user_network(spec)
    check_order(network.forward, spec.name, "loss.name")
    _try(spec.name, network, kind)
    return network


def _user_network(spec: LearnedLossSpec) -> nn.Module:
    builder = load_builder(spec.name, "loss.name", (nn.Module,))
    try:
        network = builder(**spec.options)
    except (Exception, SystemExit) as error:
        raise SpecError(
            "loss.name", f"{spec.name!r} raised {type(error).__name__}: {error}; correct the builder"
        ) from error
    if not isinstance(network, nn.Module):
        raise SpecError("loss.name", f"{spec.name!r} returned a {type(network).__name__}; it must return an nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise SpecError("loss.name", f"{spec.name!r} returned a module without parameters to learn; give it some")
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


def _activation(spec: Any) -> nn.Module:
    if spec.name == "smooth_leaky_relu":
        return SmoothLeakyReLU(spec.beta, spec.gamma)
    kinds: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus, "tanh": nn.Tanh}
    return kinds[spec.name]()
