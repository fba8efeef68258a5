"""A formula is a tree: operators of one or two operands, and the terminals y, f, 1 and -1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["OPERATORS", "TERMINALS", "Formula", "Operator", "number_text"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """How an operator is written.

    Args:
        arity: Number of its operands.
        latex: Template of the operands.
        symbol: Between two operands in infix form; empty: it is written as a function.
        binds: How strongly the symbol binds in infix form.
    """

    arity: int
    latex: str
    symbol: str = ""
    binds: int = 3


OPERATORS: dict[str, Operator] = {
    "add": Operator(arity=2, symbol="+", binds=1, latex="{} + {}"),
    "sub": Operator(arity=2, symbol="-", binds=1, latex="{} - {}"),
    "mul": Operator(arity=2, symbol="*", binds=2, latex=r"{} \cdot {}"),
    "aq": Operator(arity=2, symbol="/", binds=2, latex=r"\frac{{{}}}{{\sqrt{{1 + {}^{{2}}}}}}"),
    "sign": Operator(arity=1, latex=r"\operatorname{{sign}}\left({}\right)"),
    "square": Operator(arity=1, latex=r"{}^{{2}}"),
    "abs": Operator(arity=1, latex=r"\left|{}\right|"),
    "log": Operator(arity=1, latex=r"\log\left|{}\right|"),
    "sqrt": Operator(arity=1, latex=r"\sqrt{{\left|{}\right|}}"),
    "tanh": Operator(arity=1, latex=r"\tanh\left({}\right)"),
    "min": Operator(arity=2, latex=r"\min\left({}, {}\right)"),
    "max": Operator(arity=2, latex=r"\max\left({}, {}\right)"),
}
"""The function set of EvoMAL (Raymond et al., arXiv 2209.08907); aq(a, b) = a / sqrt(1 + b^2) is the analytic quotient."""
TERMINALS: dict[str, str] = {"y": "y", "f": "f(x)", "1": "1", "-1": "-1"}
"""y is the target, f the prediction; each with its LaTeX. Any other finite number may stand in a formula as well."""


def number_text(value: float) -> str:
    """The one way in which a number is written in a formula; `float` reads it back exactly."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _is_number(name: str) -> bool:
    try:
        value = float(name)
    except ValueError:
        return False
    return math.isfinite(value) and number_text(value) == name


POWERED = {("square", 0), ("aq", 1)}
"""Operands that LaTeX writes with an exponent."""


@dataclass(frozen=True)
class Formula:
    """A node with the trees below it.

    Args:
        name: Of an operator or a terminal; a number is named by `number_text`.
        operands: In the operator's order.
    """

    name: str
    operands: tuple[Formula, ...] = ()

    def __post_init__(self) -> None:
        arity = OPERATORS[self.name].arity if self.name in OPERATORS else 0
        assert self.name in OPERATORS or self.name in TERMINALS or _is_number(self.name), self.name
        assert len(self.operands) == arity, self

    def __str__(self) -> str:
        return self.infix

    def nodes(self) -> Iterator[Formula]:
        """Every node, operands before their operator, so that the last is the root."""
        for operand in self.operands:
            yield from operand.nodes()
        yield self

    @classmethod
    def of_names(cls, names: Iterable[str]) -> Formula:
        """The tree of nodes in prefix order: each operator before its operands."""
        rest = iter(names)

        def read() -> Formula:
            name = next(rest)
            return cls(name, tuple(read() for _ in range(OPERATORS[name].arity if name in OPERATORS else 0)))

        return read()

    def names(self) -> Iterator[str]:
        """The names of all nodes in prefix order."""
        yield self.name
        for operand in self.operands:
            yield from operand.names()

    def has(self, name: str) -> bool:
        """Whether an operator or a terminal occurs."""
        return any(node.name == name for node in self.nodes())

    @property
    def height(self) -> int:
        """Edges from the root to the farthest terminal."""
        return 1 + max(operand.height for operand in self.operands) if self.operands else 0

    @property
    def prefix(self) -> str:
        """Such as `square(sub(y, f))`."""
        inside = ", ".join(operand.prefix for operand in self.operands)
        return f"{self.name}({inside})" if self.operands else self.name

    @property
    def infix(self) -> str:
        """Such as `square(y - f)`; it is read as the same tree."""
        if not self.operands:
            return self.name
        operator = OPERATORS[self.name]
        if not operator.symbol:
            return f"{self.name}({', '.join(operand.infix for operand in self.operands)})"
        left, right = self.operands
        before = f"({left.infix})" if left._binds < operator.binds else left.infix
        after = f"({right.infix})" if right._binds <= operator.binds or right.name.startswith("-") else right.infix
        return f"{before} {operator.symbol} {after}"

    @property
    def latex(self) -> str:
        """For a paper. Logarithm and root take absolute values; the clamp at 1e-7 is not written."""
        if not self.operands:
            mantissa, _, power = TERMINALS.get(self.name, self.name).partition("e")
            return rf"{mantissa} \cdot 10^{{{int(power)}}}" if power else mantissa
        return OPERATORS[self.name].latex.format(*(self._within(place) for place in range(len(self.operands))))

    @property
    def _binds(self) -> int:
        return OPERATORS[self.name].binds if self.operands else 3

    def _within(self, place: int) -> str:
        """An operand in LaTeX, in brackets where it would be misread without."""
        operand, operator = self.operands[place], OPERATORS[self.name]
        if (self.name, place) in POWERED:
            loose = operand.name not in ("y", "1", "abs")
        elif self.name == "aq" or not operator.symbol:
            loose = False
        else:
            loose = operand._binds < operator.binds + place * (self.name == "sub") or (
                place > 0 and operand.name.startswith("-")
            )
        return rf"\left({operand.latex}\right)" if loose else operand.latex
