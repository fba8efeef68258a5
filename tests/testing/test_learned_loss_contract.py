"""Every built-in learned loss keeps the contract, on each task, and the contract refuses learned losses that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses import LEARNED, ElementwiseLoss, Slopes
from olfl_ray.spec import Strict
from olfl_ray.testing import LearnedLossContract

FORMULA = "square(y - tanh(f)) + abs(y / (1 + f)) - sign(y) * sqrt(1 + square(f)) * max(-1, log(1 + 1 + square(f))) + min(f, y)"
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [6], "bias": True},
    "expression": {"formula": FORMULA},
    "fitted": {"hidden": [4], "to": "taylor", "within": [-2.0, 2.0], "iterations": 5},
    "per_label": {"labels": 3, "hidden": [6]},
}
"""Settings that keep a learned loss small, or that it requires; every other is tested as its defaults build it."""


def suite(name: str, task: str, **options: Any) -> type[LearnedLossContract]:
    return type("Suite", (LearnedLossContract,), {"name": name, "task": task, "outputs": 3, "options": options})


LABELS_ONLY = ("margin",)
"""Learned losses that refuse targets other than 0 and 1."""
for _name in LEARNED.names():
    for _task in (
        ("classification", "multilabel") if _name in LABELS_ONLY else ("classification", "multilabel", "regression")
    ):
        globals()[f"Test_{_name}_{_task}"] = suite(_name, _task, **SMALL.get(_name, {}))


def test_each_built_in_learned_loss_is_found_by_its_file() -> None:
    assert LEARNED.names() == ["expression", "fitted", "margin", "ml3", "mlp", "per_label", "taylor"]
    assert all(f"Test_{name}_classification" in globals() for name in LEARNED.names())


class Square(ElementwiseLoss):
    """A weighted square."""

    class Config(Strict):
        weight: float = 0.7
        """At the beginning."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.tensor(config.weight))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * (output - target) ** 2


class Closed(Square):
    """With a closed form."""

    closed = True  # type: ignore[assignment]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * (output - target) ** 2

    def slopes(self, phi: Any, output_N: Tensor, target_N: Tensor) -> Slopes:
        weight, d = phi["weight"], output_N - target_N
        return weight * d**2, 2 * weight * d, lambda t_N: {"weight": (2 * d * t_N).sum()}


class Unexplained(Square):
    class Config(Strict):
        weight: float = 0.7


class WrongSlope(Closed):
    """Its slope lacks the 2."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * (output - target) ** 2

    def slopes(self, phi: Any, output_N: Tensor, target_N: Tensor) -> Slopes:
        value, slope, along = super().slopes(phi, output_N, target_N)
        return value, slope / 2, along


class Centred(Square):
    """Mixes the pairs."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(output - output.mean(), target)


class Unseeded(Square):
    """Draws from a generator of its own."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        draw = torch.Generator()
        draw.seed()
        self.weight = nn.Parameter(torch.rand((), generator=draw))


def built(weight: float = 0.7) -> nn.Module:
    return Square(Square.Config(weight=weight))


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (Unexplained, "each_setting_has_a_meaning"),
        (WrongSlope, "its_closed_form_is_the_derivative_of_forward"),
        (Centred, "a_pairs_loss_depends_on_that_pair_alone"),
        (Unseeded, "its_weights_depend_on_the_seed_alone"),
    ],
)
def test_a_learned_loss_that_breaks_a_rule_is_seen(broken: type[ElementwiseLoss], claim: str) -> None:
    for kind in (Square, Closed, built):
        getattr(suite(f"{__name__}:{kind.__name__}", "regression")(), f"test_{claim}")()
    with pytest.raises((AssertionError, SpecError)):
        getattr(suite(f"{__name__}:{broken.__name__}", "regression")(), f"test_{claim}")()
    if claim == "its_closed_form_is_the_derivative_of_forward":
        with pytest.raises(AssertionError):
            suite(f"{__name__}:{broken.__name__}", "regression")().test_every_estimator_equals_reverse_over_reverse()


def test_a_closed_form_does_not_hold_for_the_forward_of_a_subclass() -> None:
    from olfl_ray.losses import LearnedLoss

    class Cubed(Closed):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return self.weight * (output - target).abs() ** 3

    at, targets = torch.randn(4, 2), torch.randn(4, 2)
    for kind, has in ((Closed, True), (Cubed, False), (Square, False)):
        loss = LearnedLoss(kind(kind.Config()), "regression")
        assert (loss.outputs_gradient(dict(loss.named_parameters()), at, targets) is not None) == has
