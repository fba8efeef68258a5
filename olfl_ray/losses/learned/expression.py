"""A formula with one weight per edge of its tree (EvoMAL: Raymond et al., arXiv 2209.08907)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from olfl_ray.formula import OPERATORS, read_formula
from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.spec import Strict

__all__ = ["Expression"]

SMALLEST = 1e-7
"""Smallest magnitude of which a logarithm or a root is taken."""
SPREAD = 1e-3
"""Standard deviation of a weight from 1 at the beginning."""


def _magnitude(a: Tensor) -> Tensor:
    return a.abs().clamp(min=SMALLEST)


COMPUTE: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "aq": lambda a, b: a / torch.sqrt(1 + b * b),
    "sign": torch.sign,
    "square": lambda a: a * a,
    "abs": torch.abs,
    "log": lambda a: torch.log(_magnitude(a)),
    "sqrt": lambda a: torch.sqrt(_magnitude(a)),
    "tanh": torch.tanh,
    "min": torch.minimum,
    "max": torch.maximum,
}
"""Protected: finite wherever the operands are, with finite first and second derivatives."""


def _usable(text: str) -> str:
    """A formula in infix form: two spellings of one tree are one setting."""
    formula = read_formula(text)
    for name, what in (("f", "the prediction, so nothing would be trained"), ("y", "the target")):
        if not formula.has(name):
            raise ValueError(f"has no {name}, {what}; write a formula of y and f, such as square(y - f)")
    infix = formula.infix
    try:
        read_formula(infix)  # -y is written -1 * y, which is longer, and is read from the spec again
    except ValueError as error:
        raise ValueError(f"written out as -1 * y for -y, it {error}") from None
    return infix


FormulaText: TypeAlias = Annotated[str, AfterValidator(_usable)]


class Expression(ElementwiseLoss):
    """A formula of target and prediction, with a weight for each edge of its tree (EvoMAL).

    The weight of an edge multiplies the operand. phi has them in the order of `Formula.nodes`.
    """

    class Config(Strict):
        """Its settings."""

        formula: FormulaText
        """Such as square(y - f), or square(sub(y, f)), of the target y, the prediction f, and numbers. There are
        add (+), sub (-), mul (*), aq (/), sign, square, abs, log, sqrt, tanh, min and max; aq(a, b) is a / sqrt(1 + b^2), and
        log and sqrt are those of max(|a|, 1e-7)."""

        weights: Literal["learned", "fixed"] = "learned"
        """learned: they start near 1 | fixed: they are 1, and nothing of the loss is learned."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.formula = read_formula(config.formula)
        self._names = [node.name for node in self.formula.nodes()]
        edges = len(self._names) - 1
        self.weights = nn.Parameter(1 + SPREAD * torch.randn(edges)) if config.weights == "learned" else None

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The formula's value, elementwise."""
        one = output.new_ones(())
        terminals = {"y": target, "f": output, "1": one, "-1": -one}
        weights = None if self.weights is None else self.weights.unbind()
        values: list[Tensor] = []
        for place, name in enumerate(self._names):
            if name in terminals:
                value = terminals[name]
            elif name not in OPERATORS:
                value = float(name) * one
            else:
                arity = OPERATORS[name].arity
                value = COMPUTE[name](*values[-arity:])
                del values[-arity:]
            last = place == len(self._names) - 1
            values.append(value if weights is None or last else weights[place] * value)
        return values[0]
