"""Settings that a method does not use are refused: they would change a study's identity and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from olfl_ray.engine import ESTIMATORS
from olfl_ray.errors import SpecError
from olfl_ray.losses import loss_settings
from olfl_ray.methods.chosen import METHOD, METHODS, OPTIONS
from olfl_ray.methods.method import Method
from olfl_ray.spec import StudySpec, base_values, checked_options, field_of, get_dotted, same, set_dotted

__all__ = ["check_used", "methods_of", "uses"]

ESTIMATOR = "meta.estimator"
_OPTIONAL = ("loss", "meta")
"""Sections of which some methods read nothing or not every field; every method reads the others."""


def check_used(spec: StudySpec) -> None:
    """Refuse what no arm, or the arm that sets or searches it, does not use.

    Raises:
        SpecError: Names the first such field, the arm and its method.
    """
    methods = {arm: methods_of(spec, arm) for arm in spec.arms}
    for arm, found in methods.items():
        for name in found:
            _check_options(spec, arm, name, found)
    for arm, own in spec.arms.items():
        for where, fields in (("set", own.set), ("parameters", own.parameters)):
            for field in fields:
                if not uses(field, methods[arm]):
                    raise SpecError(
                        f"arms.{arm}.{where}.{field}",
                        f"is set, but the method {', '.join(methods[arm])} does not use it; remove it",
                    )
    for field in spec.search.parameters:
        for arm, found in methods.items():
            if not uses(field, found):
                raise SpecError(
                    f"search.parameters.{field}",
                    f"is searched in every arm, but arm {arm}'s method {', '.join(found)} does not use it; move it to "
                    "arms.ARM.parameters of the arms that do",
                )
    every = {name: own for found in methods.values() for name, own in found.items()}
    for field in _changed(spec):
        if not uses(field, every):
            raise SpecError(field, f"is set, but no arm's method ({', '.join(sorted(every))}) uses it; remove it")
    for arm in spec.arms:
        for name, where in _named(spec, arm, ESTIMATOR).items():
            ESTIMATORS.find(name, where)


def methods_of(spec: StudySpec, arm: str) -> dict[str, type[Method]]:
    """The method of an arm, or the methods that it searches, by name."""
    return {name: METHODS.find(name, where) for name, where in _named(spec, arm, METHOD).items()}


def _named(spec: StudySpec, arm: str, field: str) -> dict[str, str]:
    """What an arm has or searches in a field that names a part, each with its place in the spec."""
    searched = spec.parameters_of(arm).get(field)
    if searched is None:
        return {str(get_dotted(base_values(spec, arm), field)): field_of(spec, arm, field)}
    return {str(name): _searched_at(spec, arm, field) for name in searched.extremes()}


def _searched_at(spec: StudySpec, arm: str, field: str) -> str:
    """Where a spec has an arm's search of a field."""
    return f"arms.{arm}.parameters.{field}" if field in spec.arms[arm].parameters else f"search.parameters.{field}"


def _check_options(spec: StudySpec, arm: str, name: str, methods: Mapping[str, type[Method]]) -> None:
    """Refuse options that a method does not take: the arm's own, and the ends or values of those that it searches."""
    form, given = methods[name].Config, base_values(spec, arm)["learner"].get("options", {})
    checked_options(form, given, field_of(spec, arm, OPTIONS))
    for field, parameter in spec.parameters_of(arm).items():
        if not _within(field, OPTIONS) or not same(parameter.when.get(METHOD, name), name):
            continue
        where = _searched_at(spec, arm, field)
        for value in parameter.extremes():
            learner = {"learner": {"options": dict(given)}}
            set_dotted(learner, field, value)
            try:
                found = checked_options(
                    form, learner["learner"]["options"], where[: where.index(OPTIONS) + len(OPTIONS)]
                )
            except SpecError as error:
                if len(methods) == 1:
                    raise
                hint = f"search it `when: {{{METHOD}: ...}}` of the methods that take it"
                raise SpecError(error.field, f"with {METHOD} {name}: {error.problem}; {hint}") from None
            taken = get_dotted({"learner": {"options": found.model_dump(by_alias=True)}}, field)
            if parameter.is_integer and isinstance(taken, float):
                raise SpecError(
                    where, f"is a range of whole numbers, but a float is searched; write min: {parameter.min}.0"
                )


def uses(field: str, methods: Mapping[str, type[Method]]) -> bool:
    """Whether one of some methods reads a field or section."""
    if not any(_within(field, section) for section in _OPTIONAL):
        return True
    return any(_within(field, section) for found in methods.values() for section in found.uses)


def _within(field: str, section: str) -> bool:
    return f"{field}.".startswith(f"{section}.")


def _changed(spec: StudySpec) -> Iterator[str]:
    """Fields of the study's own sections whose value is not the default."""
    for section, own in (("learner", spec.learner), ("loss", spec.loss), ("meta", spec.meta)):
        given, default = (one.model_dump(mode="json", by_alias=True) for one in (own, type(own)()))
        if section == "loss":
            default = loss_settings(default)
        yield from (
            f"{section}.{name}" for name, value in given.items() if name not in default or value != default[name]
        )
