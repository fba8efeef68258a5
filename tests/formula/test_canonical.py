"""The canonical form: equal formulas share it, and formulas that share it are equal."""

from __future__ import annotations

from random import Random

import pytest
import torch
from support.formulas import drawn

from olfl_ray.formula import Formula, canonical, read_formula
from olfl_ray.losses.learned.expression import Expression

EQUAL = [
    ("square(y - f)", "square(f - y)"),
    ("square(y - f)", "y*y - (1 + 1)*(f*y) + f*f"),
    ("square(abs(y - f))", "(y - f) * (y - f)"),
    ("abs(y - f)", "abs(f - y)"),
    ("abs(square(f) + y*y)", "square(f) + square(y)"),
    ("min(y, f)", "-max(-f, -y)"),
    ("max(y, max(f, 1))", "max(max(1, y), f)"),
    ("max(f, max(1, -1)) + y", "y + max(1, f)"),
    ("tanh(y - f)", "-tanh(f - y)"),
    ("sign(y - f)", "-sign(f - y)"),
    ("sign(sign(y - f))", "sign(y - f)"),
    ("log(y - f)", "log(abs(f - y))"),
    ("y / f", "-(-y / abs(f))"),
    ("(y + f) / f", "y / f + f / f"),
    ("f * log(1) + y", "y"),
    ("y + f - f", "y"),
    ("0.5 * y - f", "-f - y * (-0.5)"),
    ("2 * y * f", "y * f + f * y"),
]
DIFFERENT = [
    ("y * f", "(1 + 1) * (y * f)"),
    ("square(y - f)", "square(y - f) + 1"),
    ("square(y - f)", "-square(y - f)"),
    ("abs(y - f)", "y - f"),
    ("log(y * f)", "log(y) + log(f)"),
    ("sqrt(square(f)) + y", "abs(f) + y"),
    ("y / f", "f / y"),
    ("0.5 * y - f", "0.25 * y - f"),
    ("tanh(abs(f)) + y", "tanh(f) + y"),
    ("min(y, f)", "max(y, f)"),
    ("log(1 - 1) + y + f", "y + f"),
]


def values(formula: Formula) -> torch.Tensor:
    torch.manual_seed(0)
    output, target = (torch.randn(40, dtype=torch.float64) for _ in range(2))
    formula = Formula("add", (formula, read_formula("y * f")))  # a learned loss has both
    built = Expression(Expression.Config(formula=formula.infix, weights="fixed"))
    return built(output, target)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_formulas_have_one_form(one: str, other: str) -> None:
    assert canonical(read_formula(one)) == canonical(read_formula(other))
    assert torch.allclose(values(read_formula(one)), values(read_formula(other)))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_formulas_have_different_forms(one: str, other: str) -> None:
    assert canonical(read_formula(one)) != canonical(read_formula(other))


def test_random_formulas_that_share_a_form_are_equal() -> None:
    random, found = Random(0), dict[str, Formula]()
    shared = 0
    for _ in range(6000):
        formula = drawn(random, random.randint(1, 4))
        first = found.setdefault(canonical(formula), formula)
        if first != formula:
            shared += 1
            assert torch.allclose(values(first), values(formula), rtol=1e-6, atol=1e-9), (str(first), str(formula))
    assert shared > 500


def test_a_high_formula_has_a_short_form() -> None:
    formula = read_formula("(y + f + log(y)) / (f + 1)")
    for _ in range(8):
        formula = Formula("square", (Formula("add", (formula, Formula("tanh", (formula,)))),))
    assert len(canonical(formula)) < 100_000
    assert len(canonical(read_formula("square(" * 40 + "y + f + 1" + ")" * 40))) < 10_000
