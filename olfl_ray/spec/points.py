"""From a study to a trial's settings: dotted overrides, and what is searched at a point."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from olfl_ray.errors import SpecError
from olfl_ray.spec.base import BUILDER, METRIC, PART, PRINTABLE
from olfl_ray.spec.parameter import Parameter, same
from olfl_ray.spec.part import PartSpec
from olfl_ray.spec.sections import OPEN
from olfl_ray.spec.study import NAME, StudySpec, TrialConfig
from olfl_ray.spec.suggest import did_you_mean

__all__ = [
    "active",
    "base_values",
    "dotted",
    "field_of",
    "get_dotted",
    "is_open",
    "plain",
    "require_trial_field",
    "set_dotted",
    "trial_config",
    "validated",
]

TRIAL_SECTIONS = ("task", "learner", "loss", "meta", "eval")


def get_dotted(data: Mapping[str, Any], field: str) -> Any:
    """The value at a dotted field; KeyError where there is none."""
    here: Any = data
    for part in field.split("."):
        if not isinstance(here, Mapping) or part not in here:
            raise KeyError(field)
        here = here[part]
    return here


def set_dotted(data: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field in place. A new `name` drops the settings that its kind does not have.

    In an open section it drops all settings of the part that it replaces: what they are is not known here.

    Raises:
        SpecError: The field lies in no section.
    """
    *path, last = field.split(".")
    here = data
    for part in path:
        if isinstance(here.get(part), str):
            here[part] = {"name": here[part]}
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SpecError(field, f"`{part}` is not a section, it is {inner!r}; name a field that exists")
        here = inner
    if last == "name" and here.get("name", _default_name(path, value)) != value:
        known = _fields_of(path, value)
        if known is not None:
            for key in [key for key in here if key not in known]:
                del here[key]
    here[last] = copy.deepcopy(value)  # a field below it may be set next, and the value is the spec's own


def is_open(field: str) -> bool:
    """Whether a dotted field is an open section, or lies in one."""
    return field.partition(".")[0] in OPEN


def _default_name(path: list[str], otherwise: Any) -> Any:
    """The name of an open section that names no part."""
    own = OPEN.get(".".join(path))
    return otherwise if own is None else own.model_fields["name"].default


def _fields_of(path: list[str], name: Any) -> set[str] | None:
    """Fields of the section at a dotted path if it names `name`; None where a builder's options are next to it."""
    if is_open(".".join(path)):
        own = OPEN.get(".".join(path))
        return {info.alias or field for field, info in own.model_fields.items()} if own is not None else {"name"}
    section: Any = TrialConfig
    for part in path:
        fields = getattr(section, "model_fields", {})
        section = fields[part].annotation if part in fields else None
    return section.settings_of(name) if isinstance(section, type) and issubclass(section, PartSpec) else None


def base_values(spec: StudySpec, arm: str) -> dict[str, Any]:
    """The arm's settings before its search, as plain data."""
    data: dict[str, Any] = {name: getattr(spec, name).model_dump(mode="json", by_alias=True) for name in TRIAL_SECTIONS}
    for field, value in _outer_first(spec.arms[arm].set):
        require_trial_field(f"arms.{arm}.set.{field}", field)
        set_dotted(data, field, value)
    return data


def field_of(spec: StudySpec, arm: str, field: str) -> str:
    """Where a spec has the value of an arm's field: with the arm, if that sets it, or else as it is named.

    Args:
        spec: The study.
        arm: Name of the arm.
        field: Dotted name of a trial's field.
    """
    own = [
        name for name in spec.arms[arm].set if f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}.")
    ]
    return f"arms.{arm}.set.{own[0]}" if own and field else field


def _outer_first(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """In an order in which neither a section nor a new `name` undoes what is set inside or next to it."""
    return sorted(fields.items(), key=lambda item: (item[0].count("."), not item[0].endswith(".name")))


def active(parameters: Mapping[str, Parameter], params: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Names of the parameters whose `when` holds at this point, in the order of the spec."""

    def value_of(field: str) -> Any:
        return params[field] if field in params else get_dotted(base, field)

    names = []
    for name, parameter in parameters.items():
        try:
            if all(same(value_of(field), wanted) for field, wanted in parameter.when.items()):
                names.append(name)
        except KeyError:
            continue
    return names


def trial_config(
    spec: StudySpec, arm: str, params: Mapping[str, Any], *, seeds: tuple[int, ...], confirming: bool = False
) -> TrialConfig:
    """The settings of one trial: the arm's own, then a point of its search space.

    Raises:
        SpecError: The point does not fit the fields.
    """
    data = base_values(spec, arm)
    for field, value in _outer_first(params):
        set_dotted(data, field, value)
    return validated(data, spec, seeds, confirming, f"arms.{arm}")


def validated(
    data: dict[str, Any], spec: StudySpec, seeds: tuple[int, ...], confirming: bool, where: str
) -> TrialConfig:
    """A trial's settings from plain values.

    Raises:
        SpecError: A field breaks a rule; it is reported at `where`.
    """
    try:
        return TrialConfig.model_validate(
            {
                **data,
                "metric": spec.search.metric,
                "goal": spec.search.goal,
                "study_seed": spec.seed,
                "seeds": seeds,
                "confirming": confirming,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        field, near = dotted(first["loc"], data, missing=first["type"] == "missing"), ""
        if first["type"] == "extra_forbidden":
            near = did_you_mean(TrialConfig, field)
        at = "" if where.endswith(f".{field}") else f"{field}: "
        raise SpecError(where, f"{at}{plain(first)}{near}") from None


def dotted(loc: tuple[Any, ...], data: Any, *, missing: bool) -> str:
    """The dotted field of a pydantic location, without the names of union members that pydantic adds.

    Args:
        loc: The location.
        data: What was validated.
        missing: Whether it is the last part that the data lack.
    """
    parts: list[str] = []
    here = data
    for index, part in enumerate(loc):
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and part in range(len(here))):
            here = here[part]
        elif not (missing and index == len(loc) - 1):
            continue
        parts.append(str(part))
    return ".".join(parts)


FORMS = {
    NAME: "a name of 1 to 64 letters, digits, `_`, `.` and `-`, of which the first is a letter or a digit",
    PRINTABLE: "a string of at least one character without control characters",
    BUILDER: "package.module:Class",
    PART: "a built-in name, or package.module:Class",
    METRIC: "selection/ and the name of a metric, such as selection/error: only that split decides a search",
}
"""Descriptions of the fields' patterns."""


def plain(error: Any) -> str:
    """A pydantic error as one sentence with the value and the rule."""
    rule, value = error["type"], error.get("input")
    if rule == "extra_forbidden":
        return "there is no such field; remove it or correct its name"
    if rule == "missing":
        return "this field is required; add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if rule == "value_error":
        return message
    if rule == "string_pattern_mismatch":
        pattern = error["ctx"]["pattern"]
        message = f"must be {FORMS.get(pattern, f'text of the form {pattern}')}"
    elif rule == "tuple_type":
        message = "must be a list"
    shown = repr(value)
    return f"{message}, but it is {shown if len(shown) <= 80 else shown[:77] + '...'} ({type(value).__name__})"


def require_trial_field(where: str, field: str) -> None:
    """Refuse a dotted field that lies in no section of a trial."""
    head = field.split(".")[0]
    if head not in TRIAL_SECTIONS or "." not in field:
        near = did_you_mean(TrialConfig, field)
        raise SpecError(
            where, f"there is no field {field!r} in a trial{near}; use one of {', '.join(TRIAL_SECTIONS)}.*"
        )
