"""A study's spec with one more arm, in which a formula is a fixed loss."""

from __future__ import annotations

from typing import Any

from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec, parse_spec, spec_as_yaml

__all__ = ["with_formula"]

LEARNING = ("loss.", "meta.", "learner.method")
"""Settings of the explained arm that its formula does not take over."""


def with_formula(spec: StudySpec, arm: str, formula: str, reduction: str) -> str:
    """The spec as YAML, with the arm `ARM_formula`; the other arms, and so their trials, stay as they are.

    The new arm has the explained arm's settings and searched fields but those of the learned loss and of meta-learning, and its
    number of trials.

    Args:
        spec: The study's.
        arm: The explained arm.
        formula: Of `loss.formula`.
        reduction: Of the learned loss.

    Raises:
        SpecError: The study searches a setting in every arm that the formula does not have.
    """
    explained = spec.arms[arm]
    name = f"{arm}_formula"
    while name in spec.arms:
        name += "_"
    own: dict[str, Any] = {field: value for field, value in explained.set.items() if not _learns(field)}
    own |= {
        "learner.method": "offline",
        "meta.init_steps": 0,
        "loss.name": "expression",
        "loss.formula": formula,
        "loss.weights": "fixed",
        "loss.reduction": reduction,
    }
    parameters = {field: value for field, value in explained.parameters.items() if not _learns(field)}
    added = explained.model_copy(update={"set": own, "parameters": parameters})
    text = spec_as_yaml(spec.model_copy(update={"arms": {**spec.arms, name: added}}))
    complete(parse_spec(text.encode(), source="as-arm"), own=False)
    return text


def _learns(field: str) -> bool:
    return field in ("loss", "meta") or field.startswith(LEARNING)
