"""The hidden activation of the loss network against autograd's own derivatives of its formula."""

import pytest
import torch
from torch.nn import functional as F

from olfl_ray.losses import SmoothLeakyReLU


def formula(z: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    return torch.log1p(torch.exp(beta * z)) / beta * (1 - gamma) + gamma * z


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_value_and_three_derivatives_are_those_of_the_formula(beta: float, gamma: float) -> None:
    z = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    found, wanted = SmoothLeakyReLU(beta, gamma)(z), formula(z, beta, gamma)
    torch.testing.assert_close(found, wanted)
    for _ in range(3):
        (found,) = torch.autograd.grad(found.sum(), z, create_graph=True)
        (wanted,) = torch.autograd.grad(wanted.sum(), z, create_graph=True)
        torch.testing.assert_close(found, wanted)
        if gamma == 1.0:  # the identity: higher derivatives are 0 and have no graph in either form
            break


def test_forward_mode_equals_reverse_mode() -> None:
    z = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(SmoothLeakyReLU(), z.requires_grad_(), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(SmoothLeakyReLU(), z, check_fwd_over_rev=True)


def test_far_from_zero_it_stays_finite() -> None:
    z = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = SmoothLeakyReLU(10.0, 0.01)(z)
    (slope,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    torch.testing.assert_close(value, F.leaky_relu(z, 0.01))
    torch.testing.assert_close(slope, torch.tensor([0.01, 1.0]))
