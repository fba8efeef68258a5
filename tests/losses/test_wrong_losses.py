"""A user's learned loss that can't be learned: one message that says why, before anything starts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses import LearnedLoss, build_loss, task_loss
from olfl_ray.spec import LearnedLossSpec


class Own(nn.Module):
    """l_phi by name of its formula."""

    def __init__(self, formula: str) -> None:
        super().__init__()
        self.w, self.formula = nn.Parameter(torch.tensor(0.7)), formula
        self.norm = nn.BatchNorm1d(1)

    def forward(self, output: Tensor, target: Tensor) -> Any:
        return FORMULAS[self.formula](self, target, output)


FORMULAS: dict[str, Any] = {
    "square": lambda m, y, f: m.w * (y - f) ** 2,
    "logarithm": lambda m, y, f: -m.w * (y * torch.log(f) + (1 - y) * torch.log(1 - f)),
    "detached": lambda m, y, f: m.w * (y - f.detach()) ** 2,
    "rounded": lambda m, y, f: m.w * (y - (f > 0).float()) ** 2,
    "without a graph": lambda m, y, f: (m.w * (y - f) ** 2).detach(),
    "centred": lambda m, y, f: m.w * (y - f + f.mean()) ** 2,
    "normalised": lambda m, y, f: m.norm((m.w * (y - f)).reshape(-1, 1)).reshape(f.shape),
    "random": lambda m, y, f: m.w * (y - f + torch.rand_like(f)) ** 2,
    "nan": lambda m, y, f: m.w * torch.log(y - 2) * f,
    "steep": lambda m, y, f: m.w * torch.sqrt((f - f.detach()).abs()),
    "zeta": lambda m, y, f: m.w * torch.special.zeta(2 + f**2, 1 + y**2),
    "idle": lambda m, y, f: m.w + (y - f) ** 2,
    "output alone": lambda m, y, f: m.w * f,
    "scalar": lambda m, y, f: (m.w * (y - f) ** 2).mean(),
    "number": lambda m, y, f: 1.0,
    "rows alone": lambda m, y, f: m.w * (y - f) ** 2 + 0 * f.shape[1],
}


def own(formula: str) -> nn.Module:
    return Own(formula)


def build(formula: str, kind: str) -> None:
    build_loss(LearnedLossSpec.model_validate({"name": f"{__name__}:own", "formula": formula}), kind, seed=0)


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("detached", "has no gradient in the output, its first argument; do not detach"),
        ("rounded", "has no gradient in the output"),
        ("without a graph", "has no gradient in the output"),
        ("centred", "must be elementwise, but a pair's loss changes with the others in its batch"),
        ("normalised", "can't be called as l_phi.output, target.: ValueError: Expected more than 1 value"),
        ("random", "must be elementwise"),
        ("nan", r"must be finite, but l_phi\(.*, .*\) is nan; correct it"),
        ("steep", "must have a finite gradient in the output"),
        ("idle", "has a gradient in the output that no parameter changes"),
        ("zeta", r"can't be differentiated twice \(the derivative for .zeta. is not implemented"),
        ("scalar", r"must keep the shape \(3, 2\) of its inputs, but returned \(\)"),
        ("number", r"must keep the shape \(3, 2\) of its inputs, but returned float"),
        ("rows alone", "can't be called as l_phi.output, target.: IndexError"),
    ],
)
def test_one_message_says_why_it_cannot_be_learned(formula: str, says: str, kind: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(formula, kind)
    assert caught.value.field == "loss.name"
    assert re.search(says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loss_of_probabilities_is_taken_for_classes_and_refused_for_targets() -> None:
    build("square", "regression")
    build("square", "classification")
    build("logarithm", "classification")
    with pytest.raises(SpecError, match="must be finite, but"):
        build("logarithm", "regression")


class Swapped(nn.Module):
    """Took (target, output) in an earlier version."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.w * (y_true - y_pred) ** 2


def swapped() -> nn.Module:
    return Swapped()


def mean_squared_error(target_BC: Tensor, output_BC: Tensor) -> Tensor:
    return ((target_BC - output_BC) ** 2).mean()


def well_ordered(y_pred: Tensor, y_true: Tensor) -> Tensor:
    return ((y_true - y_pred) ** 2).mean()


def test_every_loss_takes_outputs_first_and_one_that_names_them_second_is_refused() -> None:
    with pytest.raises(SpecError, match="outputs first") as learned:
        build_loss(LearnedLossSpec(name=f"{__name__}:swapped"), "regression", seed=0)
    with pytest.raises(SpecError, match="outputs first") as task:
        task_loss(f"{__name__}:mean_squared_error", "regression")
    assert (learned.value.field, task.value.field) == ("loss.name", "task.loss")
    with pytest.raises(SpecError, match="outputs first"):
        LearnedLoss(Swapped(), "regression")
    task_loss(f"{__name__}:well_ordered", "regression")
    task_loss("torch.nn.functional:huber_loss", "regression")


def test_a_learned_loss_hands_its_network_the_outputs_first() -> None:
    outputs, targets = torch.randn(4, 2), torch.randn(4, 2)
    loss = LearnedLoss(Own("output alone"), "regression")
    torch.testing.assert_close(loss(outputs, targets), 0.7 * outputs.mean())
