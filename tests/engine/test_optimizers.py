"""Base optimizers: equal to torch's, with finite derivatives where a gradient is exactly zero."""

import pytest
import torch
from torch import nn

from olfl_ray.engine import Adam, Sgd


def test_adam_is_differentiable_where_the_gradient_is_exactly_zero() -> None:
    optimizer = Adam()
    theta = {"w": torch.ones(3, dtype=torch.float64)}
    grad = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    moved, _ = optimizer.update(theta, {"w": grad}, optimizer.init(theta), 0.1)
    (found,) = torch.autograd.grad(moved["w"].sum(), grad)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(momentum=0.9, nesterov=True, weight_decay=0.1), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0, 0.1, True)),
        (Adam(weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
        (Adam(weight_decay=0.1, decoupled=True), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1)),
    ],
)
def test_optimizers_equal_torchs_own(ours, theirs) -> None:
    torch.manual_seed(0)
    value = nn.Parameter(torch.randn(5, dtype=torch.float64))
    other = theirs([value])
    theta, state = {"w": value.detach().clone()}, ours.init({"w": value.detach()})
    for _ in range(5):
        grad = torch.randn(5, dtype=torch.float64)
        value.grad = grad.clone()
        other.step()
        theta, state = ours.update(theta, {"w": grad}, state, 0.1)
    torch.testing.assert_close(theta["w"], value.detach(), rtol=1e-12, atol=1e-13)
