"""Open sections in full: checked by the part that their name means, and completed with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from olfl_ray.errors import SpecError
from olfl_ray.spec.points import base_values, field_of, get_dotted, trial_config
from olfl_ray.spec.study import StudySpec

__all__ = ["NO_PARTS", "Parts", "Settings", "completed"]

Settings: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From an open section, as a spec has it, to the same with every setting; a SpecError names the dotted field."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is known of open sections. A spec is read without it: only higher packages know the parts.

    Args:
        settings: Of each open section that is known.
        used: Whether an arm's method uses a section. Where it does not, a wrong setting is no error of the section.
    """

    settings: Mapping[str, Settings]
    used: Callable[[str, str], bool]

    def in_full(self, arm: str, section: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """An arm's section with every setting, or as it is where that can't be and the arm does not use it."""
        try:
            return self.settings[section](data)
        except SpecError:
            if self.used(arm, section):
                raise
            return dict(data)


NO_PARTS = Parts(settings={}, used=lambda arm, section: False)
"""Leaves open sections as they are."""


def completed(spec: StudySpec, parts: Parts) -> StudySpec:
    """The spec with every setting of its open sections, so that two spellings of one study are one study.

    Raises:
        SpecError: A setting breaks a rule of its part, or is missing where an arm uses the part and does not search it.
    """
    for section, settings in parts.settings.items():
        given = getattr(spec, section)
        data = given.model_dump(mode="json", by_alias=True)
        try:
            spec = spec.model_copy(update={section: type(given).model_validate(settings(data))})
        except SpecError as error:  # what is missing, an arm may set or search
            if _is_there({section: data}, error.field) and any(parts.used(arm, section) for arm in spec.arms):
                raise
        for arm, own in spec.arms.items():
            arms = {**spec.arms, arm: own.model_copy(update={"set": _set_by(spec, arm, section, parts)})}
            spec = spec.model_copy(update={"arms": arms})
    return spec


def _set_by(spec: StudySpec, arm: str, section: str, parts: Parts) -> dict[str, Any]:
    """What an arm sets, with what its own part adds to the study's section."""
    own = dict(spec.arms[arm].set)
    given = getattr(trial_config(spec, arm, {}, seeds=(0,)), section)
    try:
        whole = {section: parts.in_full(arm, section, given.model_dump(mode="json", by_alias=True))}
    except SpecError as error:
        if error.field in spec.parameters_of(arm):
            return own
        raise SpecError(field_of(spec, arm, error.field), error.problem) from None
    own |= {field: get_dotted(whole, field) for field in own if f"{field}.".startswith(f"{section}.")}
    arms = {**spec.arms, arm: spec.arms[arm].model_copy(update={"set": own})}
    base = base_values(spec.model_copy(update={"arms": arms}), arm)
    return own | {field: value for field, value in _leaves(whole) if not _is_there(base, field)}


def _is_there(data: Mapping[str, Any], field: str) -> bool:
    try:
        get_dotted(data, field)
    except KeyError:
        return False
    return True


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
