"""What all sections of a spec share: their base classes, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from olfl_ray.plugins import name_of_builder

__all__ = [
    "BUILDER",
    "LONGEST",
    "METRIC",
    "PART",
    "PRINTABLE",
    "Fraction",
    "Named",
    "NamedBuilder",
    "NonNegative",
    "Positive",
    "Steps",
    "Strict",
    "as_name",
    "as_named",
    "as_tuple",
]


class Strict(BaseModel):
    """Base of every section: frozen, no unknown keys, no coercion, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def as_tuple(value: Any) -> Any:
    """A list, as YAML gives it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def as_name(value: Any) -> Any:
    """A function or class as its dotted name."""
    return name_of_builder(value) if callable(value) else value


def as_named(value: Any) -> Any:
    """A plain name, or a builder itself, as a section with that name."""
    return {"name": as_name(value)} if isinstance(value, str) or callable(value) else value


PRINTABLE = r"^[^\x00-\x1f]+$"
"""Text of at least one character, none of them a control character."""

BUILDER = r"^[\w.]+:\w+$"
PART = r"^(\w+|[\w.]+:\w+)$"
"""A built-in name, or a user's own `package.module:Class`; the part's registry knows which there are."""
METRIC = r"^selection/\w+$"
"""A metric of the validation split."""

LONGEST = 10**9
"""The most steps of anything: more than any trial makes."""
Steps: TypeAlias = Annotated[int, Field(ge=1, le=LONGEST)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Fraction: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class NamedBuilder(BaseModel):
    """A built-in thing or a user's `package.module:builder`, with the builder's options next to the name."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: Annotated[str, BeforeValidator(as_name), Field(min_length=1)]
    """Built-in name, or `package.module:builder`."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name: the builder's keyword arguments."""
        return dict(self.model_extra or {})


Named: TypeAlias = Annotated[NamedBuilder, BeforeValidator(as_named, json_schema_input_type=NamedBuilder | str)]
