"""Fixed losses against their closed forms, finite differences, and the cross-entropy that each of them contains."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses import LossFiles, TaskLoss, task_loss
from olfl_ray.methods import Setting, method_of
from olfl_ray.spec import TrialConfig
from olfl_ray.tasks import task_of


def loss_of(method: str, *, task: str = "auto", kind: str = "classification", **options: float) -> TaskLoss:
    """What a method trains theta on."""
    config = TrialConfig.model_validate(
        {"task": {"dataset": "digits", "loss": task}, "learner": {"method": method, "options": options}}
    )
    setting = Setting(config=config, kind=kind, task=task_of(kind), outputs=3, theta={}, seed=0, losses=LossFiles())
    return method_of(config.learner).base_loss(setting, task_loss(task, kind))


LOSSES = {
    "label_smoothing": loss_of("label_smoothing", smoothing=0.3),
    "focal": loss_of("focal", gamma=1.7),
    "poly1": loss_of("poly1", epsilon=-0.4, task="cross_entropy"),
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


@pytest.mark.parametrize(
    ("method", "option"), [("label_smoothing", "smoothing"), ("focal", "gamma"), ("poly1", "epsilon")]
)
def test_at_0_each_is_the_cross_entropy(method: str, option: str) -> None:
    logits_BC, targets_B = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = loss_of(method, **{option: 0.0})
    torch.testing.assert_close(loss(logits_BC, targets_B), F.cross_entropy(logits_BC, targets_B))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_stays_finite_where_the_probability_rounds_to_0_or_1(gamma: float) -> None:
    logits_BC = torch.tensor([[200.0, 0.0], [200.0, 0.0], [9.0, -9.0]], requires_grad=True)
    loss = loss_of("focal", gamma=gamma)(logits_BC, torch.tensor([0, 1, 0]))
    (slope_BC,) = torch.autograd.grad(loss, logits_BC)
    assert loss.item() == pytest.approx(200 / 3, rel=1e-6)
    assert torch.isfinite(slope_BC).all()
    assert slope_BC[0].abs().max() == 0
    assert slope_BC[1].tolist() == pytest.approx([1 / 3, -1 / 3], rel=1e-6)


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_other_methods_train_on_the_task_loss_of_either_kind(method: str) -> None:
    assert loss_of(method) is F.cross_entropy
    assert loss_of(method, kind="regression") is F.mse_loss


@pytest.mark.parametrize("method", sorted(LOSSES))
@pytest.mark.parametrize(
    ("task", "kind"), [("squared_error", "regression"), ("torch.nn.functional:multi_margin_loss", "classification")]
)
def test_each_takes_the_place_of_a_cross_entropy_and_of_no_other_loss(method: str, task: str, kind: str) -> None:
    with pytest.raises(SpecError, match=rf"{method}.*cross-entropy.*{task}.*baseline") as caught:
        loss_of(method, task=task, kind=kind)
    assert caught.value.field == "learner.method"


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [("label_smoothing", "smoothing", 1.0), ("focal", "gamma", -0.1), ("poly1", "epsilon", -1.1)],
)
def test_an_option_out_of_its_range_is_refused(method: str, option: str, value: float) -> None:
    with pytest.raises(SpecError, match=str(value)) as caught:
        loss_of(method, **{option: value})
    assert caught.value.field == f"learner.options.{option}"
