"""Every loss takes outputs, then targets; one with parameters named in the other order is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from olfl_ray.errors import SpecError

__all__ = ["check_order"]

TARGET = re.compile(r"(y|t|gt)|(y_?)?(true|truth)|(ground_?truth|targets?|labels?)", re.IGNORECASE)
OUTPUT = re.compile(
    r"(f|p|q|z|fx|f_x)|(y_?)?(pred|preds|hat)|(outputs?|predictions?|predicted|logits?|probs?|probabilit(y|ies)|scores?)",
    re.IGNORECASE,
)
SHAPE = re.compile(r"_[A-Z0-9]+$")


def check_order(function: Callable[..., Any], dotted: str, field: str) -> None:
    """Refuse a loss whose first parameter is named as a target and whose second as an output.

    Args:
        function: Is called with (outputs, targets).
        dotted: Its name in the spec.
        field: Field of the spec that has it.

    Raises:
        SpecError: The two are swapped.
    """
    try:
        names = list(inspect.signature(function).parameters)[:2]
    except (TypeError, ValueError):
        return
    first, second = (SHAPE.sub("", name) for name in [*names, "", ""][:2])
    if TARGET.fullmatch(first) and OUTPUT.fullmatch(second):
        raise SpecError(
            field,
            f"{dotted!r} takes ({', '.join(names)}), but every loss is called with outputs first, then targets; swap these "
            "two parameters",
        )
