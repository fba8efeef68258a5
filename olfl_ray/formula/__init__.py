"""Formulas of an elementwise loss: trees of operators over y and f(x), read from text and written as text."""

from olfl_ray.formula.canonical import canonical
from olfl_ray.formula.reading import HIGHEST, LONGEST, read_formula
from olfl_ray.formula.tree import OPERATORS, TERMINALS, Formula, Operator

__all__ = ["HIGHEST", "LONGEST", "OPERATORS", "TERMINALS", "Formula", "Operator", "canonical", "read_formula"]
