"""Fixed losses against their closed forms, finite differences, and the cross-entropy that each of them contains."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses import fixed_loss, focal, poly1
from olfl_ray.spec import FocalSpec, LabelSmoothingSpec, LearnerSpec, Poly1Spec

LOSSES = {
    "label_smoothing": fixed_loss(LabelSmoothingSpec(name="label_smoothing", smoothing=0.3), "auto", "classification"),
    "focal": fixed_loss(FocalSpec(name="focal", gamma=1.7), "auto", "classification"),
    "poly1": fixed_loss(Poly1Spec(name="poly1", epsilon=-0.4), "cross_entropy", "classification"),
}


def probabilities(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits that have these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log() + 3.0


def test_values_are_those_of_the_formulas() -> None:
    logits_BC, targets_B = probabilities((0.7, 0.2, 0.1), (0.25, 0.25, 0.5)), torch.tensor([0, 1])
    smoothed = (
        -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1)),
        -(0.1 * math.log(0.25) + 0.8 * math.log(0.25) + 0.1 * math.log(0.5)),
    )
    assert LOSSES["label_smoothing"](logits_BC, targets_B).item() == pytest.approx(sum(smoothed) / 2, rel=1e-12)
    easy = -(0.3**1.7) * math.log(0.7), -(0.75**1.7) * math.log(0.25)
    assert LOSSES["focal"](logits_BC, targets_B).item() == pytest.approx(sum(easy) / 2, rel=1e-12)
    first = -math.log(0.7) - 0.4 * 0.3, -math.log(0.25) - 0.4 * 0.75
    assert LOSSES["poly1"](logits_BC, targets_B).item() == pytest.approx(sum(first) / 2, rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    logits_BC = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets_B = torch.tensor([0, 1, 2, 3, 3])
    assert torch.autograd.gradcheck(LOSSES[name], (logits_BC, targets_B))


@pytest.mark.parametrize(("loss", "neutral"), [(focal, {"gamma": 0.0}), (poly1, {"epsilon": 0.0})])
def test_at_0_each_is_the_cross_entropy(loss: object, neutral: dict[str, float]) -> None:
    logits_BC, targets_B = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    assert callable(loss)
    torch.testing.assert_close(loss(logits_BC, targets_B, **neutral), F.cross_entropy(logits_BC, targets_B))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_stays_finite_where_the_probability_rounds_to_0_or_1(gamma: float) -> None:
    logits_BC = torch.tensor([[200.0, 0.0], [200.0, 0.0], [9.0, -9.0]], requires_grad=True)
    loss = focal(logits_BC, torch.tensor([0, 1, 0]), gamma=gamma)
    (slope_BC,) = torch.autograd.grad(loss, logits_BC)
    assert loss.item() == pytest.approx(200 / 3, rel=1e-6)
    assert torch.isfinite(slope_BC).all()
    assert slope_BC[0].abs().max() == 0
    assert slope_BC[1].tolist() == pytest.approx([1 / 3, -1 / 3], rel=1e-6)


def test_the_default_is_the_task_loss_of_either_kind() -> None:
    spec = LearnerSpec().fixed_loss
    assert fixed_loss(spec, "auto", "classification") is F.cross_entropy
    assert fixed_loss(spec, "auto", "regression") is F.mse_loss
    with pytest.raises(SpecError, match=r"^learner\.fixed_loss: poly1 .* squared_error on a regression data set"):
        fixed_loss(Poly1Spec(name="poly1"), "squared_error", "regression")
