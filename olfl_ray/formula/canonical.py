"""A normal form of formulas: a polynomial with integer coefficients whose variables are y, f and values of functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias

from olfl_ray.formula.tree import Formula

__all__ = ["canonical"]

Term: TypeAlias = tuple[tuple[str, int], ...]
"""A product: variables, each with its power, in their order; empty: 1."""
Polynomial: TypeAlias = Mapping[Term, int]
"""The coefficient of each term; none is 0."""

TERMS, LARGEST = 64, 2**53
"""A product with more terms, or a coefficient beyond that of an exact float, is not expanded: it is a variable itself."""
LONGEST = 80
"""A longer variable is named by its digest."""


@lru_cache(maxsize=100_000)
def canonical(formula: Formula) -> str:
    """A text that two formulas share only if they have the same value for every y and f(x), but for rounding.

    It applies to the formula with all weights at 1. Sums, products and powers are multiplied out, operands of commutative functions
    are sorted, constants are folded where the result is an integer, and signs are moved out of odd and dropped from even
    functions. A factor or a constant makes a difference: 2 * a is not a. Two equal formulas may still have different texts.
    """
    return _text(_polynomial(formula))


def _polynomial(formula: Formula) -> Polynomial:
    name, operands = formula.name, formula.operands
    if name in ("y", "f"):
        return {((name, 1),): 1}
    if not operands:
        return _constant(name)
    if name in ("log", "sqrt", "square"):
        operands = (_without_abs(operands[0]),)
    elif name == "aq":
        operands = (operands[0], _without_abs(operands[1]))
    if name in ("max", "min"):
        # min(a, b) = -max(-a, -b)
        sign = 1 if name == "max" else -1
        found = [_scaled(_polynomial(operand), sign) for operand in _gathered(formula, name)]
        return _scaled(_greatest(found), sign)
    first = _polynomial(operands[0])
    if name == "add":
        return _sum(first, _polynomial(operands[1]))
    if name == "sub":
        return _sum(first, _scaled(_polynomial(operands[1]), -1))
    if name == "mul":
        return _product(first, _polynomial(operands[1]))
    if name == "square":
        return _product(first, first)
    if name == "aq":
        # a / sqrt(1 + b^2), where the second factor is a variable of its own
        _, other = _primitive(_polynomial(operands[1]), factor=False)
        return first if not other else _product(first, _variable("reciprocal", other))
    if name == "abs":
        factor, first = _primitive(first)
        return _scaled(first if _is_nonnegative(first) else _variable(name, first), abs(factor))
    if name == "sign":
        factor, first = _primitive(first)
        return _scaled(first if _is_sign(first) else _variable(name, first), 1 if factor > 0 else -1)
    factor, first = _primitive(first, factor=False)
    if name == "tanh":
        return {} if not first else _scaled(_variable(name, first), factor)
    if first == {(): 1}:
        return {} if name == "log" else {(): 1}
    return _variable(name, first)


def _constant(name: str) -> Polynomial:
    """An integer as itself; another number as a variable."""
    if name.lstrip("-").isdecimal():
        return _number(int(name))
    return {((f"number({name.removeprefix('-')})", 1),): -1 if name.startswith("-") else 1}


def _without_abs(operand: Formula) -> Formula:
    while operand.name == "abs":
        operand = operand.operands[0]
    return operand


def _gathered(formula: Formula, name: str) -> list[Formula]:
    """The operands of nested calls of a function that is associative."""
    return (
        [one for operand in formula.operands for one in _gathered(operand, name)] if formula.name == name else [formula]
    )


def _greatest(found: list[Polynomial]) -> Polynomial:
    different = {_text(one): one for one in found}
    numbers = [one.get((), 0) for one in different.values() if not set(one) - {()}]
    others = sorted(text for text, one in different.items() if set(one) - {()})
    if not others:
        return _number(max(numbers))
    if not numbers and len(others) == 1:
        return different[others[0]]
    return {((_named("max", ", ".join([*others, *map(str, sorted(numbers)[-1:])])), 1),): 1}


def _number(value: int) -> Polynomial:
    return {(): value} if value else {}


def _sum(one: Polynomial, other: Polynomial) -> Polynomial:
    found = dict(one)
    for term, count in other.items():
        found[term] = found.get(term, 0) + count
    return {term: count for term, count in found.items() if count}


def _scaled(one: Polynomial, factor: int) -> Polynomial:
    return {term: count * factor for term, count in one.items()}


def _product(one: Polynomial, other: Polynomial) -> Polynomial:
    if len(one) * len(other) <= TERMS:
        found: dict[Term, int] = {}
        for left, count in one.items():
            for right, times in other.items():
                term = _joined(left, right)
                found[term] = found.get(term, 0) + count * times
        if all(abs(count) <= LARGEST for count in found.values()):
            return {term: count for term, count in found.items() if count}
    parts = [_primitive(part, factor=False) for part in (one, other)]
    inner = ", ".join(sorted(_text(part) for _, part in parts))
    return {((_named("product", inner), 1),): parts[0][0] * parts[1][0]}


def _joined(left: Term, right: Term) -> Term:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted(powers.items()))


def _primitive(one: Polynomial, *, factor: bool = True) -> tuple[int, Polynomial]:
    """The polynomial divided by a number: by its sign, that of its first term, and by the coefficients' common factor.

    Args:
        one: The polynomial; of 0 the number is 1.
        factor: Whether by the common factor; else only by the sign.
    """
    if not one:
        return 1, one
    number = math.gcd(*one.values()) if factor else 1
    number = number if one[min(one)] > 0 else -number
    return number, {term: count // number for term, count in one.items()}


def _is_nonnegative(one: Polynomial) -> bool:
    return all(
        count > 0 and all(power % 2 == 0 or name.startswith(("abs", "sqrt", "reciprocal")) for name, power in term)
        for term, count in one.items()
    )


def _is_sign(one: Polynomial) -> bool:
    """Whether it is -1, 0 or 1: 0, 1, or a sign."""
    if one in ({}, {(): 1}):
        return True
    return len(one) == 1 and all(len(term) == 1 and term[0][0].startswith("sign") for term in one)


def _variable(function: str, one: Polynomial) -> Polynomial:
    return {((_named(function, _text(one)), 1),): 1}


def _named(function: str, inner: str) -> str:
    return f"{function}({inner})" if len(inner) <= LONGEST else f"{function}#{sha256(inner.encode()).hexdigest()[:32]}"


def _text(one: Polynomial) -> str:
    terms = (
        "*".join([str(count), *(name if power == 1 else f"{name}^{power}" for name, power in term)])
        for term, count in sorted(one.items())
    )
    return " + ".join(terms) or "0"
