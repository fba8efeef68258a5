"""What a learned loss is: known losses near it, a formula, and where it is flat, improper or rewards errors (docs/explain.md)."""

from olfl_ray.explain.checks import Finding
from olfl_ray.explain.explanation import Explanation, explain
from olfl_ray.explain.families import FAMILIES, Family
from olfl_ray.explain.formulas import FormulaFit
from olfl_ray.explain.nearest import Member

__all__ = ["FAMILIES", "Explanation", "Family", "Finding", "FormulaFit", "Member", "explain"]
