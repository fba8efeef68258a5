"""Sparse regression of a loss's gradient on the gradients of a dictionary of formulas: the best few terms of all subsets."""

# N examples, C outputs, K terms of the dictionary

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olfl_ray.explain.reference import Array, Reference, slope_of
from olfl_ray.losses import read_formula

__all__ = ["MOST", "TERMS", "FormulaFit", "chosen_fit", "fitted_formulas", "formula_misfit"]

TERMS: dict[str, tuple[str, ...]] = {
    "classification": (
        "y * log(f)",
        "log(f)",
        "y * log(1 - f)",
        "log(1 - f)",
        "y * f",
        "square(f)",
        "y * square(f)",
        "f * square(f)",
        "y * f * square(f)",
        "f * log(f)",
        "y * f * log(f)",
        "y * square(f) * log(f)",
        "sqrt(f)",
        "y * sqrt(f)",
    ),
    "regression": (
        "square(y - f)",
        "abs(y - f)",
        "square(square(y - f))",
        "sqrt(1 + square(y - f))",
        "log(1 + square(y - f))",
        "f",
        "y * f",
        "square(f)",
        "f * square(f)",
        "y * square(f)",
        "square(y) * f",
        "tanh(f)",
        "y * tanh(f)",
    ),
}
"""The dictionary by task. In a classification f itself is missing: summed over the classes it is 1, and has no gradient."""
MOST = 4
"""Terms of the longest formula."""
GAIN = 0.02
"""The chosen formula has the fewest terms whose misfit is at most this much larger than that of the best one."""
DIGITS = 4
"""Significant digits of a coefficient."""


@dataclass(frozen=True, kw_only=True)
class FormulaFit:
    """A formula that a loss's gradient was fitted with.

    Args:
        terms: Number of terms.
        formula: In the syntax of `loss: {name: expression, formula: ...}`, with its coefficients; its gradient is as large as
            the loss's, so that the same learning rate fits.
        latex: The same for a paper.
        misfit: Relative root mean square of the difference of the formula's own gradient, as `expression` computes it, and the
            loss's.
    """

    terms: int
    formula: str
    latex: str
    misfit: float


def fitted_formulas(gradient_NC: Array, reference: Reference) -> list[FormulaFit]:
    """The best formula of each number of terms, found among all subsets by least squares.

    Args:
        gradient_NC: The loss's gradient on the reference.
        reference: Where it is compared.

    Returns:
        From one term on; empty for a gradient of 0.
    """
    g = float(np.linalg.norm(gradient_NC))
    if g == 0:
        return []
    terms = TERMS[reference.kind]
    columns_KN = np.stack([_gradient(f"{term}", reference).ravel() for term in terms])
    scales_K = np.linalg.norm(columns_KN, axis=1)
    columns_KN /= scales_K[:, None]
    gram_KK, projected_K = columns_KN @ columns_KN.T, columns_KN @ (gradient_NC.ravel() / g)
    fits = []
    for size in range(1, MOST + 1):
        subsets = [
            subset
            for subset in itertools.combinations(range(len(terms)), size)
            if any(read_formula(terms[index]).has("y") for index in subset)
        ]
        index_S = np.array(subsets)
        grams = gram_KK[index_S[:, :, None], index_S[:, None, :]]
        weights = (np.linalg.pinv(grams, rcond=1e-8, hermitian=True) @ projected_K[index_S][:, :, None])[:, :, 0]
        explained = (weights * projected_K[index_S]).sum(1)
        best = int(explained.argmax())
        coefficients = weights[best] * g / scales_K[index_S[best]]
        text = _written(coefficients, [terms[index] for index in index_S[best]])
        if text is not None:
            fits.append(
                FormulaFit(
                    terms=size,
                    formula=text,
                    latex=read_formula(text).latex,
                    misfit=formula_misfit(text, gradient_NC, reference),
                )
            )
    return fits


def chosen_fit(fits: Sequence[FormulaFit]) -> FormulaFit | None:
    """The shortest formula that is nearly as good as the best one."""
    least = min((fit.misfit for fit in fits), default=math.inf)
    return next((fit for fit in fits if fit.misfit <= least + GAIN), None)


def formula_misfit(formula: str, gradient_NC: Array, reference: Reference) -> float:
    """|g - h| / |g| of a loss's gradient g and that of a formula, as it is written."""
    rest = np.linalg.norm(gradient_NC - _gradient(formula, reference))
    return float(rest / np.linalg.norm(gradient_NC))


def _gradient(formula: str, reference: Reference) -> Array:
    from olfl_ray.losses.learned.expression import Expression

    text = formula if read_formula(formula).has("y") else f"{formula} + 0 * y"
    network = Expression(Expression.Config(formula=text, weights="fixed"))
    return reference.gradient(slope_of(network))


def _written(coefficients: Sequence[float], terms: Sequence[str]) -> str | None:
    """The sum of the terms, each with its coefficient; None where rounding leaves none with y."""
    text = ""
    for coefficient, term in zip(coefficients, terms, strict=True):
        value = float(f"{coefficient:.{DIGITS}g}")
        if value == 0 or not math.isfinite(value):
            continue
        sign = ("-" if value < 0 else "") if not text else (" - " if value < 0 else " + ")
        text += f"{sign}{abs(value)!r} * {term}"
    return read_formula(text).infix if text and read_formula(text).has("y") else None
