"""The margin losses of DOSA: closed forms, symmetry, and no network that learns nothing attains their minimum."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.losses.margins import Importance, MarginLoss, margin_loss
from olfl_ray.models.dosa import Dosa
from olfl_ray.tasks import task_of

IMPORTANCE: tuple[Importance, ...] = ("attached", "detached", "none")


def loss_of(labels: int = 3, **settings: Any) -> MarginLoss:
    """On one-hot targets of classes, which are 0 and 1 as those of labels."""
    return MarginLoss(task_of("classification"), labels, **settings).double()


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(9, 3, generator=draw).double() - 2, torch.randint(3, (9,), generator=draw)


def test_value_is_that_of_the_formula() -> None:
    loss = loss_of(initial=1.25)
    outputs_BL, targets_B = batch()
    wanted = 0.0
    for scores, target in zip(outputs_BL.tolist(), targets_B.tolist(), strict=True):
        for label, score in enumerate(scores):
            u = (1 if label == target else -1) * score - 1.25
            wanted += math.exp(-u) * u**2 / len(targets_B)
    assert loss(outputs_BL, targets_B).item() == pytest.approx(wanted, rel=1e-7)
    assert loss_of(initial=1.25, importance="detached")(outputs_BL, targets_B).item() == pytest.approx(wanted, rel=1e-7)
    assert loss_of(initial=1.25, reduction="mean")(outputs_BL, targets_B).item() == pytest.approx(wanted / 3, rel=1e-7)


@pytest.mark.parametrize(
    ("importance", "slope"),
    [
        ("attached", lambda u: torch.exp(-u) * u * (2 - u)),
        ("detached", lambda u: 2 * u * torch.exp(-u)),
        ("none", lambda u: 2 * u),
    ],
)
def test_gradient_is_the_closed_form_in_every_order(importance: Importance, slope: Any) -> None:
    u = torch.linspace(-4, 4, 81, dtype=torch.float64).requires_grad_()
    (given,) = torch.autograd.grad(margin_loss(u, importance).sum(), u, create_graph=True)
    torch.testing.assert_close(given, slope(u), rtol=1e-12, atol=1e-12)
    (second,) = torch.autograd.grad(given.sum(), u)
    (wanted,) = torch.autograd.grad(slope(u).sum(), u)
    torch.testing.assert_close(second, wanted, rtol=1e-12, atol=1e-12)


def test_detached_gradient_is_that_of_a_factor_without_one() -> None:
    u = torch.linspace(-3, 3, 13, dtype=torch.float64).requires_grad_()
    (wanted,) = torch.autograd.grad((torch.exp(-u).detach() * u * u).sum(), u)
    (given,) = torch.autograd.grad(margin_loss(u, "detached").sum(), u)
    torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_gradient_in_the_margins_is_minus_the_one_in_the_scores(importance: Importance) -> None:
    loss = loss_of(importance=importance, lowest=0.2)
    outputs_BL, targets_B = batch()
    outputs_BL.requires_grad_()
    of_scores_BL, of_rho_L = torch.autograd.grad(loss(outputs_BL, targets_B), (outputs_BL, loss.rho))
    sign_BL = 2 * nn.functional.one_hot(targets_B, 3) - 1
    share_L = (loss.margins() - 0.2) / 1.8
    torch.testing.assert_close(of_rho_L, -(sign_BL * of_scores_BL).sum(0) * 1.8 * share_L * (1 - share_L))


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_permuted_classes_permute_the_loss(importance: Importance) -> None:
    order = torch.tensor([2, 0, 1])
    loss, permuted = loss_of(importance=importance), loss_of(importance=importance)
    with torch.no_grad():
        loss.rho.copy_(torch.tensor([-1.0, 0.3, 2.0]))
        permuted.rho.copy_(loss.rho[order])
    outputs_BL, targets_B = batch()
    assert loss(outputs_BL, targets_B).item() == pytest.approx(
        permuted(outputs_BL[:, order], torch.argsort(order)[targets_B]).item(), rel=1e-12
    )


def test_margins_stay_between_their_bounds_whatever_is_trained() -> None:
    loss = loss_of(lowest=0.3)
    for value in (-1e3, -3.0, 0.0, 3.0, 1e3):
        nn.init.constant_(loss.rho, value)
        assert 0.3 <= loss.margins().min() <= loss.margins().max() <= 2.0
    assert loss_of(initial=0.75).measured() == {f"margin/{label}": pytest.approx(0.75) for label in range(3)}


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_dead_network_is_no_minimum(importance: Importance) -> None:
    """Scores of 0 cost at least lowest^2 per label, and have a gradient, even if every margin is as low as it can be."""
    loss = loss_of(importance=importance)
    nn.init.constant_(loss.rho, -40.0)
    dead_BL = torch.zeros(6, 3).double().requires_grad_()
    value = loss(dead_BL, torch.arange(6) % 3)
    assert value.item() >= 3 * 0.25
    (slope_BL,) = torch.autograd.grad(value, dead_BL)
    assert slope_BL.abs().min() >= 2 * 0.5 / 6 * 0.999


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_long_training_of_network_and_margins_does_not_collapse(importance: Importance) -> None:
    """On labels that can't be predicted well, where low margins and scores are cheapest, both stay away from 0."""
    torch.manual_seed(0)
    x, y = torch.randn(48, 6), torch.randint(3, (48,))
    module, loss = Dosa(6, 3, [16], steps=4, tau=2.0), loss_of(importance=importance).float()
    optimizer = torch.optim.Adam([*module.parameters(), *loss.parameters()], lr=0.01)
    for _ in range(600):
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()
    assert loss.margins().min() >= 0.5
    scores = (2 * nn.functional.one_hot(y, 3) - 1) * module(x)
    assert scores.mean() > 0.3
    assert module(x).abs().mean() > 0.3
