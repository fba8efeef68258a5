"""What is searched of one field: a range, a list of values, or formulas."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from olfl_ray.formula import HIGHEST, OPERATORS, Formula, read_formula
from olfl_ray.plugins import nearest
from olfl_ray.spec.base import Strict, as_tuple

__all__ = ["Condition", "ExpressionSpace", "Parameter", "same"]

Scalar: TypeAlias = bool | int | float | str | None
Condition: TypeAlias = dict[str, Scalar]


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal: 0 is 0.0, but `true` is not 1, though Python takes it for that."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


FARTHEST = 10**15
"""The farthest end of a range: a float still holds it to the unit."""


class ExpressionSpace(Strict):
    """Formulas of y and f(x), of limited height."""

    functions: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = tuple(OPERATORS)
    """Functions that may occur: add, sub, mul, aq, sign, square, abs, log, sqrt, tanh, min, max."""
    height: Annotated[tuple[int, int], BeforeValidator(as_tuple)] = (2, 4)
    """Smallest and largest height of a tree that is drawn at random."""
    max_height: Annotated[int, Field(ge=2, le=HIGHEST)] = 10
    """Largest height of any tree."""

    @model_validator(mode="after")
    def _known(self) -> ExpressionSpace:
        for place, name in enumerate(self.functions):
            if name not in OPERATORS:
                raise ValueError(
                    f"functions: there is no {name!r}{nearest(name, list(OPERATORS))}; use {', '.join(OPERATORS)}"
                )
            if name in self.functions[:place]:
                raise ValueError(f"functions: {name!r} appears twice; list it once")
        if not any(OPERATORS[name].arity == 2 for name in self.functions):
            raise ValueError(
                f"functions: one of them must have two operands, or y and f(x) can't both occur, but functions="
                f"{list(self.functions)}; add one, such as sub"
            )
        least, greatest = self.height
        if not 1 <= least <= greatest < self.max_height:
            raise ValueError(
                f"`1 <= height[0] <= height[1] < max_height` must hold, but height={list(self.height)}, max_height="
                f"{self.max_height}; change them"
            )
        return self

    @property
    def binary(self) -> list[str]:
        """The functions of two operands; the arithmetic ones if there are any."""
        found = [name for name in self.functions if OPERATORS[name].arity == 2]
        return [name for name in found if OPERATORS[name].symbol] or found

    @property
    def example(self) -> str:
        """A formula of this space."""
        return Formula(self.binary[0], (Formula("y"), Formula("f"))).infix

    def taken(self, text: str) -> str:
        """A formula of this space in infix form.

        Raises:
            ValueError: It can't be read, or is none of this space.
        """
        formula = read_formula(text)
        if formula.height > self.max_height:
            raise ValueError(f"has the height {formula.height}, but max_height is {self.max_height}")
        if other := sorted({node.name for node in formula.nodes() if node.operands} - set(self.functions)):
            raise ValueError(f"has the function {other[0]}, but functions are {', '.join(self.functions)}")
        if missing := [name for name in ("y", "f") if not formula.has(name)]:
            raise ValueError(f"has no {missing[0]}")
        return formula.infix


class Parameter(Strict):
    """One searched field: a range (`min`, `max`), a list of `values`, or formulas (`expression`)."""

    min: float | int | None = None
    """Smallest value of a range. The field's type decides between integers and floats. For an option of a builder, the type of
    the spec's own value decides; without one, two integers make a range of integers."""
    max: float | int | None = None
    """Largest value of a range."""
    log: bool = False
    """Draw the logarithm uniformly."""
    values: Annotated[tuple[Any, ...] | None, BeforeValidator(as_tuple)] = None
    """Choices."""
    expression: Annotated[ExpressionSpace | None, Field(exclude_if=lambda value: value is None)] = None
    """Formulas, in a field that holds one, such as loss.formula; the sampler evolution searches them."""
    when: Condition = {}
    """Search this field only where these other fields have these values."""

    @model_validator(mode="after")
    def _range_or_values(self) -> Parameter:
        if self.expression is not None:
            if self.values is not None or self.min is not None or self.max is not None or self.log or self.when:
                raise ValueError("`expression` goes with no other key (min, max, log, values, when); drop the others")
            return self
        if self.values is not None:
            if self.min is not None or self.max is not None or self.log:
                raise ValueError("give either `values` or a range (`min`, `max`, `log`), not both; drop one of them")
            if not self.values:
                raise ValueError("`values` must not be empty, but values=[]; list at least one value")
            repeated = [
                value
                for index, value in enumerate(self.values)
                if any(same(value, other) for other in self.values[:index])
            ]
            if repeated:
                raise ValueError(f"`values` must differ, but {repeated[0]!r} appears twice; list it once")
            return self
        if self.min is None or self.max is None:
            raise ValueError("give `min` and `max`, or `values`, or `expression`")
        for name, end in (("min", self.min), ("max", self.max)):
            if abs(end) > FARTHEST:
                raise ValueError(
                    f"a range must lie between -1e15 and 1e15, but `{name}` does not; bring it nearer to 0"
                )
        if not self.min < self.max:
            raise ValueError(f"`min < max` must hold, but min={self.min}, max={self.max}; swap or change them")
        if self.log and self.min <= 0:
            raise ValueError(f"`log: true` needs `min > 0`, but min={self.min}; raise min or drop log")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether the range is of whole numbers."""
        return isinstance(self.min, int) and isinstance(self.max, int)

    def extremes(self) -> tuple[Any, ...]:
        """Values that every checker of the search space must accept: the ends of the range, all choices, or one formula."""
        if self.expression is not None:
            return (self.expression.example,)
        return self.values if self.values is not None else (self.min, self.max)
