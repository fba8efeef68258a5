"""What a loss does to predictions that are optimised directly on it, and which losses have the same gradients there."""

from __future__ import annotations

import math

import pytest

from olfl_ray.losses.probe import gain, gradient
from olfl_ray.search.filters import Gradient, gains
from olfl_ray.search.space import Space
from olfl_ray.spec import PrunerSpec

MSE, CE = "square(y - f)", "-y * log(f)"
KINDS = ["classification", "regression"]


def space(kind: str) -> Space:
    return Space(
        arm="a",
        parameters={},
        base={"loss": {"name": "expression", "reduction": "sum"}},
        own=None,
        goal="minimize",
        pruner=PrunerSpec(name="none"),
        seed=0,
        where={},
        task=kind,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "formula", ["-square(y - f)", "1 + y - y + f - f", "sign(y - f)", "sign(square(f) - y)", "y - f"]
)
def test_flipped_constant_and_sign_only_losses_are_rejected(formula: str, kind: str) -> None:
    formula = "f - y" if (formula, kind) == ("y - f", "classification") else formula
    assert not gains(formula, space(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("formula", [MSE, "abs(y - f)", "square(y - f) + 1"])
def test_losses_that_improve_predictions_pass(formula: str, kind: str) -> None:
    assert gains(formula, space(kind))


def test_the_cross_entropy_passes_where_targets_are_classes() -> None:
    assert gains(CE, space("classification"))
    assert gain(CE, "classification", "sum") > 0.3


def test_a_loss_that_is_not_finite_is_rejected() -> None:
    formula = "square(" * 12 + "y - f - 100" + ")" * 12
    assert math.isnan(gain(formula, "regression", "mean"))
    assert not gains(formula, space("regression"))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_with_the_same_gradients_are_found(kind: str) -> None:
    def of(formula: str) -> Gradient:
        return Gradient({"loss.formula": formula}, space(kind))

    for same in ("square(y - f) + 1", "square(y - f) + tanh(y)", "square(f) - 2 * (y * f) + sign(y)"):
        assert of(MSE).equals(of(same))
    for other in ("2 * square(y - f)", "-square(y - f)", "abs(y - f)", "square(y - f) + 0.1 * square(f)"):
        assert not of(MSE).equals(of(other))


def test_the_gradient_is_that_of_the_mean_over_examples() -> None:
    found = gradient(MSE, "regression", "mean")
    assert len(found) == 100
    assert gradient("2 * " + MSE, "regression", "mean") == pytest.approx([2 * value for value in found])


def test_a_multiple_of_the_prediction_changes_no_gradient_where_probabilities_sum_to_one() -> None:
    one, other = (Gradient({"loss.formula": text}, space("classification")) for text in (MSE, MSE + " + 0.1 * f"))
    assert one.equals(other)
