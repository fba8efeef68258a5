"""A learned loss's gradient in the outputs in closed form: autograd's own of `forward`, or none where a part was changed."""

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize

from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.spec import LearnedLossSpec


def built(activation: str = "smooth_leaky_relu", **settings: object) -> LearnedLoss:
    spec = LearnedLossSpec.model_validate({"hidden": (6, 6), "activation": {"name": activation}, **settings})
    return build_loss(spec, "classification", seed=1).double()


def check(loss: LearnedLoss, outputs_BC: Tensor, targets: Tensor) -> None:
    """The loss, its slope, and the slope's own derivative in phi are those of autograd."""
    phi = {name: value for name, value in loss.named_parameters() if value.requires_grad}
    outputs_BC = outputs_BC.detach().requires_grad_()
    wanted = loss(outputs_BC, targets)
    (slope_BC,) = torch.autograd.grad(wanted, outputs_BC, create_graph=True)
    u_BC = torch.randn_like(slope_BC)
    along = torch.autograd.grad(slope_BC, list(phi.values()), u_BC, materialize_grads=True)
    closed = loss.outputs_gradient(phi, outputs_BC.detach(), targets)
    assert closed is not None
    torch.testing.assert_close(closed[0], wanted.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(closed[1], slope_BC.detach(), rtol=1e-10, atol=1e-12)
    for found, value in zip(closed[2](u_BC).values(), along, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 3), (5,), (5, 4, 3), (2, 3, 2, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_closed_form_is_the_gradient_of_forward(kind: str, reduction: str, shape: tuple[int, ...]) -> None:
    if kind == "classification" and len(shape) == 1:
        shape = (1, *shape)
    torch.manual_seed(0)
    loss = build_loss(LearnedLossSpec(reduction=reduction), kind, seed=1).double()
    outputs_BC = torch.randn(shape, dtype=torch.float64)
    targets = torch.randint(shape[-1], shape[:-1]) if kind == "classification" else torch.randn_like(outputs_BC)
    check(loss, outputs_BC, targets)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(5,), (5, 4, 6)])
@pytest.mark.parametrize("activation", ["smooth_leaky_relu", "relu", "softplus", "tanh"])
def test_closed_form_holds_for_every_activation_depth_and_bias(
    activation: str, hidden: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    loss = built(activation, hidden=hidden, bias=bias)
    for parameter in loss.parameters():
        parameter.data = torch.randn_like(parameter)
    check(loss, torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3)


def frozen(loss: LearnedLoss) -> LearnedLoss:
    loss.network.layers[0].weight.requires_grad_(False)
    return loss


def bent_early(loss: LearnedLoss) -> LearnedLoss:
    loss.network.layers[1].threshold = 0.5
    return loss


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: loss,
        copy.deepcopy,
        lambda loss: pickle.loads(pickle.dumps(loss)),
        lambda loss: (loss.load_state_dict(built("softplus").state_dict()), loss)[1],
        lambda loss: loss.float().double(),
        lambda loss: loss.eval(),
        frozen,
        bent_early,
    ],
)
def test_closed_form_stays_where_nothing_of_its_formula_was_changed(change: Callable) -> None:
    check(change(built("softplus")), torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3)


@contextlib.contextmanager
def hooked_everywhere(loss: LearnedLoss) -> Iterator[LearnedLoss]:
    handle = register_module_forward_hook(lambda module, inputs, output: None)
    try:
        yield loss
    finally:
        handle.remove()


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


class Sub(LearnedLoss):
    """Another class, though with the same forward."""


def subclass(loss: LearnedLoss) -> LearnedLoss:
    return Sub(loss.network, loss.kind)


def spoilt(run: Callable[[LearnedLoss], object]) -> Callable[[LearnedLoss], LearnedLoss]:
    return lambda loss: (run(loss), loss)[1]


def weightless(layer: nn.Module) -> None:
    del layer.weight
    layer.weight = torch.ones(6, 6, dtype=torch.float64)


CHANGES: dict[str, Callable] = {
    "forward hook": spoilt(lambda loss: loss.register_forward_hook(lambda module, i, o: 3 * o)),
    "forward pre-hook": spoilt(lambda loss: loss.network.register_forward_pre_hook(lambda module, i: None)),
    "backward hook": spoilt(lambda loss: loss.network.layers.register_full_backward_hook(lambda module, i, o: None)),
    "backward pre-hook": spoilt(lambda loss: loss.register_full_backward_pre_hook(lambda module, o: None)),
    "hook on a layer": spoilt(lambda loss: loss.network.layers[4].register_forward_hook(lambda module, i, o: 2 * o)),
    "hook everywhere": hooked_everywhere,
    "forward replaced": spoilt(lambda loss: setattr(loss, "forward", partial(LearnedLoss.forward, loss))),
    "a layer's forward replaced": spoilt(
        lambda loss: setattr(loss.network.layers[2], "forward", MethodType(lambda layer, x: 2 * x, loss))
    ),
    "module inserted": spoilt(lambda loss: loss.network.layers.insert(2, nn.Dropout(0.3))),
    "module appended": spoilt(lambda loss: loss.network.layers.append(Doubled())),
    "module replaced": spoilt(lambda loss: loss.network.layers.__setitem__(1, nn.GELU())),
    "module removed": spoilt(lambda loss: loss.network.layers.__delitem__(3)),
    "network replaced": spoilt(lambda loss: setattr(loss, "network", Doubled())),
    "layers replaced": spoilt(lambda loss: setattr(loss.network, "layers", Doubled())),
    "spectral norm": spoilt(lambda loss: parametrizations.spectral_norm(loss.network.layers[2])),
    "parametrisation": spoilt(
        lambda loss: parametrize.register_parametrization(loss.network.layers[2], "weight", Doubled())
    ),
    "tied weights": spoilt(lambda loss: setattr(loss.network.layers[2], "bias", loss.network.layers[0].bias)),
    "weight that is no parameter": spoilt(lambda loss: weightless(loss.network.layers[2])),
    "subclass": subclass,
    "activation without a formula": lambda loss: LearnedLoss(with_gelu(loss), loss.kind),
}


def with_gelu(loss: LearnedLoss) -> nn.Module:
    loss.network.layers[1] = nn.GELU()
    return loss.network


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_no_closed_form_stands_for_a_loss_that_was_changed(change: str, copied: bool) -> None:
    loss = built(bias=True)
    if copied:
        loss = copy.deepcopy(loss)
    changed = CHANGES[change](loss)
    with changed if isinstance(changed, contextlib.AbstractContextManager) else contextlib.nullcontext(changed) as loss:
        phi = dict(loss.named_parameters())
        assert loss.outputs_gradient(phi, torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3) is None


def test_no_closed_form_stands_for_a_loss_in_autocast() -> None:
    loss, targets = built().float(), torch.arange(8) % 3
    with torch.autocast("cpu", torch.bfloat16):
        assert loss.outputs_gradient(dict(loss.named_parameters()), torch.randn(8, 3), targets) is None
