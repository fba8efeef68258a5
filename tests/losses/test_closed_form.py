"""A learned loss's gradient in the outputs in closed form: autograd's own of `forward`, whatever shape the outputs have."""

import pytest
import torch

from olfl_ray.losses import build_loss
from olfl_ray.losses.learned import Kind
from olfl_ray.spec import LearnedLossSpec


@pytest.mark.parametrize("shape", [(8, 3), (5,), (5, 4, 3), (2, 3, 2, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_closed_form_is_the_gradient_of_forward(kind: Kind, reduction: str, shape: tuple[int, ...]) -> None:
    if kind == "classification" and len(shape) == 1:
        shape = (1, *shape)
    torch.manual_seed(0)
    loss = build_loss(LearnedLossSpec(reduction=reduction), kind, seed=1).double()
    outputs_BC = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(shape[-1], shape[:-1]) if kind == "classification" else torch.randn_like(outputs_BC)
    wanted = loss(outputs_BC, targets)
    (slope_BC,) = torch.autograd.grad(wanted, outputs_BC)
    closed = loss.outputs_gradient(dict(loss.named_parameters()), outputs_BC.detach(), targets)
    assert closed is not None
    torch.testing.assert_close(closed[0], wanted.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(closed[1], slope_BC, rtol=1e-10, atol=1e-12)
