"""A perceptron that starts at another learned loss has its values and slopes, and refuses what it can't be fitted to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from olfl_ray.errors import SpecError
from olfl_ray.losses import LearnedLoss, build_loss, loss_settings
from olfl_ray.losses.margins import MarginLoss
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.tasks import task_of


def build(name: str, kind: str = "classification", seed: int = 1, **options: Any) -> LearnedLoss:
    return build_loss(LearnedLossSpec.model_validate({"name": name, **options}), kind, seed=seed)


@pytest.mark.parametrize(("activation", "seed"), [("smooth_leaky_relu", 0), ("tanh", 1)])
def test_network_starts_at_the_margin_loss(activation: str, seed: int) -> None:
    score = torch.linspace(-1.9, 1.9, 60).repeat(2).requires_grad_()
    target = torch.tensor([0.0, 1.0]).repeat_interleave(60)
    found, wanted = (
        build(name, seed=seed, **own).network(score.sigmoid(), target)
        for name, own in (("fitted", {"activation": activation}), ("margin", {}))
    )
    slopes = [torch.autograd.grad(value.sum(), score, retain_graph=True)[0] for value in (found, wanted)]
    assert ((found - wanted).norm() / wanted.norm()).item() < 0.05
    assert cosine_similarity(*slopes, 0).item() > 0.98


def test_it_is_fitted_to_any_learned_loss_of_any_task() -> None:
    f, y = torch.linspace(-2, 2, 30).repeat(3), torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(30)
    found = build("fitted", "regression", to="taylor", within=[-2.5, 2.5]).network(f, y)
    wanted = (y - f) ** 2 - y**2  # taylor's default
    assert ((found - wanted).norm() / wanted.norm()).item() < 0.05


def test_margin_as_a_learned_loss_is_the_margin_loss_of_raw_outputs() -> None:
    """With margins of 1 and one label after the other, on scores that are log odds."""
    scores = torch.linspace(-1.5, 1.5, 20)[:, None]
    learned, plain = build("margin").network, MarginLoss(task_of("classification"), 1, initial=1.0)
    for target in (0.0, 1.0):
        value = learned(scores.sigmoid(), torch.full_like(scores, target))
        u = (2 * target - 1) * scores - plain.margins()
        torch.testing.assert_close(value, torch.exp(-u) * u * u, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["margin", "fitted"])
def test_task_without_labels_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="0 and 1"):
        build(name, "regression")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"to": "fitted"}, "loss.to"),
        ({"to": "margins"}, "loss.to"),
        ({"to": "mine:Loss"}, "loss.to"),
        ({"within": [0.9, 0.1]}, "loss.within"),
        ({"within": [0.1]}, "loss.within"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        loss_settings({"name": "fitted", **options})
    assert caught.value.field.startswith(field)
