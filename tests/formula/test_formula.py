"""Formulas as text: both forms are read as the tree that they were written from, and a bad one is answered with its position."""

from __future__ import annotations

from random import Random

import pytest
from support.formulas import drawn

from olfl_ray.formula import HIGHEST, read_formula


def test_a_thousand_random_trees_are_read_back_from_both_forms() -> None:
    random = Random(0)
    for _ in range(1000):
        tree = drawn(random, 6)
        assert read_formula(tree.infix) == tree == read_formula(tree.prefix), tree.prefix


@pytest.mark.parametrize(
    ("text", "infix", "prefix", "latex"),
    [
        ("square(sub(y,f(x)))", "square(y - f)", "square(sub(y, f))", r"\left(y - f(x)\right)^{2}"),
        ("(y-f)**2", "square(y - f)", "square(sub(y, f))", r"\left(y - f(x)\right)^{2}"),
        (
            " -y*log( f )",
            "-1 * y * log(f)",
            "mul(mul(-1, y), log(f))",
            r"-1 \cdot y \cdot \log\left|f(x)\right|",
        ),
        ("y-(f-1)", "y - (f - 1)", "sub(y, sub(f, 1))", r"y - \left(f(x) - 1\right)"),
        ("y-f-1", "y - f - 1", "sub(sub(y, f), 1)", "y - f(x) - 1"),
        ("y/(f/1)", "y / (f / 1)", "aq(y, aq(f, 1))", r"\frac{y}{\sqrt{1 + \left(\frac{f(x)}{\sqrt{1 + 1^{2}}}\right)^{2}}}"),
        ("y--1", "y - (-1)", "sub(y, -1)", r"y - \left(-1\right)"),
        ("min(y,\n  max(f, 1))", "min(y, max(f, 1))", "min(y, max(f, 1))", r"\min\left(y, \max\left(f(x), 1\right)\right)"),
        ("(y+f)*sqrt(y)", "(y + f) * sqrt(y)", "mul(add(y, f), sqrt(y))", r"\left(y + f(x)\right) \cdot \sqrt{\left|y\right|}"),
    ],
)  # fmt: skip
def test_each_form_is_written(text: str, infix: str, prefix: str, latex: str) -> None:
    tree = read_formula(text)
    assert (tree.infix, tree.prefix, tree.latex, str(tree)) == (infix, prefix, latex, infix)


@pytest.mark.parametrize(
    ("text", "infix", "latex"),
    [
        ("2.50*y - -0.125*f", "2.5 * y - -0.125 * f", r"2.5 \cdot y - -0.125 \cdot f(x)"),
        ("1.0 * y", "1 * y", r"1 \cdot y"),
        ("1e-07 * f + (-2)", "1e-07 * f + (-2)", r"1 \cdot 10^{-7} \cdot f(x) + \left(-2\right)"),
        ("square(-3)", "square(-3)", r"\left(-3\right)^{2}"),
    ],
)
def test_numbers_have_one_form(text: str, infix: str, latex: str) -> None:
    tree = read_formula(text)
    assert (tree.infix, tree.latex) == (infix, latex)
    assert read_formula(tree.infix) == tree == read_formula(tree.prefix)


def test_height_and_nodes() -> None:
    tree = read_formula("square(y - f)")
    assert tree.height == 2
    assert [node.name for node in tree.nodes()] == ["y", "f", "sub", "square"]
    assert tree.has("sub")
    assert not tree.has("add")


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("sqare(y - f)", 1, "did you mean 'square'"),
        ("square(y - g)", 12, "operands are y, f and numbers"),
        ("1 + tanhh", 5, "did you mean 'tanh'"),
        ("True * y", 1, "no finite number"),
        ("1e999 * y", 1, "no finite number"),
        ("y +", 4, "at the end"),
        ("y + (f", 5, "never closed"),
        ("y f", 3, "consists of y, f, numbers"),
        ("square(y - f", 7, "never closed"),
        ("f + square(y, f)", 5, r"takes 1 operand, but has 2; write square\(a\)"),
        ("min(y)", 1, r"takes 2 operands, but has 1; write min\(a, b\)"),
        ("min(y, *f)", 1, "takes 2 operands"),
        ("y ^ f", 3, "consists of y, f, numbers"),
        ("y; f", 2, "consists of y, f, numbers"),
        ("y * x", 5, r"prediction f\(x\); write f"),
        ("f(y)", 1, r"write f, and \* between two factors"),
        ("(y + 1)(f)", 2, "write . between two factors"),
        ("y**3", 4, "only squares are"),
        ("y // f", 1, "an operator other than"),
        ("y if f else 1", 1, "is no part of a formula"),
        ("y.f", 1, "is no part of a formula"),
        ("y + square", 5, r"write square\(a\)"),
    ],
)
def test_a_bad_formula_is_answered_with_position_rule_and_nearest_word(text: str, position: int, says: str) -> None:
    with pytest.raises(ValueError, match=rf"at character {position}\b.*{says}") as caught:
        read_formula(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("y" * 10_001, "at most 10000"),
        ("-" * 9_000 + "y", "nested more than"),
        ("y + " * 2_000 + "f", "nested more than"),
        ("(" * 900 + "y" + ")" * 900, "too many nested"),
        ("9" * 9_000, "can't be read"),
        ("y + \\d", "character 5"),
        ("é", "character 1"),
    ],
)
def test_text_of_any_kind_is_one_error(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_formula(text)


def test_the_highest_tree_is_read() -> None:
    text = "abs(" * HIGHEST + "y" + ")" * HIGHEST
    assert read_formula(text).height == HIGHEST
    with pytest.raises(ValueError, match="nested more than 50"):
        read_formula(f"abs({text})")
