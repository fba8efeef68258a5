"""Options next to a name, checked against the settings class of what the name means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from olfl_ray.errors import SpecError
from olfl_ray.spec.base import Strict
from olfl_ray.spec.points import dotted, plain
from olfl_ray.spec.suggest import did_you_mean

__all__ = ["checked_options"]

Form = TypeVar("Form", bound=Strict)


def checked_options(form: type[Form], options: Mapping[str, Any], field: str) -> Form:
    """The settings that a spec gives next to a name.

    Args:
        form: Settings class of the implementation that the name means.
        options: What the spec gives.
        field: Field of the spec that holds them, for messages.

    Raises:
        SpecError: One of them breaks a rule; it names the field, the value, the rule and a near name.
    """
    try:
        return form.model_validate(dict(options))
    except ValidationError as error:
        # A mistyped name comes before the field that is missing because of it.
        first = min(error.errors(), key=lambda one: one["type"] == "missing")
        inner = dotted(first["loc"], options, missing=first["type"] == "missing")
        problem = plain(first)
        if first["type"] == "extra_forbidden":
            known = ", ".join(info.alias or name for name, info in form.model_fields.items())
            near = did_you_mean(form, inner, within=field)
            problem += near or (f"; there are: {known}" if known else "; it has none")
        raise SpecError(f"{field}.{inner}" if inner else field, problem) from None
