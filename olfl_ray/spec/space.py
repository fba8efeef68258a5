"""An arm's search space: checked against the fields it searches, in their own types; its points, counted and listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from olfl_ray.errors import SpecError
from olfl_ray.spec.complete import NO_PARTS, Parts, completed
from olfl_ray.spec.parameter import Parameter, same
from olfl_ray.spec.points import (
    active,
    base_values,
    get_dotted,
    is_open,
    require_trial_field,
    set_dotted,
    trial_config,
    validated,
)
from olfl_ray.spec.study import StudySpec, TrialConfig
from olfl_ray.spec.suggest import did_you_mean

__all__ = ["own_point", "planned", "points_left", "resolve_search", "values_of"]


def resolve_search(spec: StudySpec, parts: Parts = NO_PARTS) -> StudySpec:
    """The spec with every searched value in its field's type, so that two spellings of one study are one study.

    Args:
        spec: The study.
        parts: What is known of its open sections: they are completed. Others stay as they are.

    Raises:
        SpecError: Names the parameter, the value and the rule: fields exist, ends of ranges fit, values differ,
            conditions can hold.
    """
    spec = completed(spec, parts)
    shared = dict(spec.search.parameters)
    arms = dict(spec.arms)
    for arm in spec.arms:
        base = base_values(spec, arm)
        trial_config(spec, arm, {}, seeds=(0,))
        parameters = spec.parameters_of(arm)
        for field, parameter in parameters.items():
            own = field in spec.arms[arm].parameters
            where = f"arms.{arm}.parameters.{field}" if own else f"search.parameters.{field}"
            require_trial_field(where, field)
            _check_condition(where, parameter, parameters, base, parts)
            resolved = _resolved(spec, arm, where, field, parameter, parts)
            if own:
                arms[arm] = arms[arm].model_copy(update={"parameters": {**arms[arm].parameters, field: resolved}})
            else:
                shared[field] = resolved
    search = spec.search.model_copy(update={"parameters": shared})
    return spec.model_copy(update={"search": search, "arms": arms})


def _resolved(spec: StudySpec, arm: str, where: str, field: str, parameter: Parameter, parts: Parts) -> Parameter:
    """A parameter whose values are those that its field takes them for: 0 is 0.0 where the field is a float."""
    given = parameter.extremes()
    taken = [_taken(spec, arm, where, field, value, parameter.when, parts) for value in given]
    for index, value in enumerate(taken):
        before = next((place for place in range(index) if same(taken[place], value)), None)
        if parameter.values is not None and before is not None:
            raise SpecError(
                where, f"`values` must differ, but {given[before]!r} and {given[index]!r} are the same; list it once"
            )
    if parameter.expression is not None:
        return parameter
    section = field.partition(".")[0] in parts.settings
    found = [
        now if (isinstance(now, float) and isinstance(value, int)) or (section and isinstance(now, dict)) else value
        for value, now in zip(given, taken, strict=True)
    ]
    if parameter.values is not None:
        return parameter.model_copy(update={"values": tuple(found)})
    return parameter.model_copy(update={"min": found[0], "max": found[1]})


def _taken(
    spec: StudySpec,
    arm: str,
    where: str,
    field: str,
    value: Any,
    when: Mapping[str, Any],
    parts: Parts,
) -> Any:
    """What a field makes of a value. A builder's option has no declared type: the spec's own value defines it."""
    data = base_values(spec, arm)
    try:
        before = get_dotted(data, field)
    except KeyError:
        before = None
    for other, wanted in itertools.chain(when.items(), [(field, value)]):
        set_dotted(data, other, wanted)
    try:
        whole = validated(data, spec, (0,), False, where).model_dump(mode="json", by_alias=True)
        for section in parts.settings:
            whole[section] = _in_full(spec, arm, where, section, whole[section], parts)
        found = get_dotted(whole, field)
    except KeyError:
        raise SpecError(where, f"there is no field {field!r}{_near(field)}; correct its name") from None
    except SpecError as error:
        if "no such field" in error.problem and not is_open(field):
            raise SpecError(where, f"there is no field {field!r}{_near(field)}; correct its name") from None
        raise
    return float(found) if isinstance(before, float) and type(found) is int else found


def _in_full(
    spec: StudySpec, arm: str, where: str, section: str, data: Mapping[str, Any], parts: Parts
) -> dict[str, Any]:
    """An open section at a point. What is missing there may be searched as well."""
    try:
        return parts.in_full(arm, section, data)
    except SpecError as error:
        here = where.endswith(f".{error.field}")
        if error.field in spec.parameters_of(arm) and not here:
            return dict(data)
        raise SpecError(where, error.problem if here else f"{error.field}: {error.problem}") from None


def _near(field: str) -> str:
    return did_you_mean(TrialConfig, field)


def _check_condition(
    where: str,
    parameter: Parameter,
    parameters: Mapping[str, Parameter],
    base: Mapping[str, Any],
    parts: Parts,
) -> None:
    for field, wanted in parameter.when.items():
        if field in parameters:
            choices = parameters[field].values
            if choices is not None and not any(same(wanted, choice) for choice in choices):
                raise SpecError(
                    where,
                    f"`when` requires {field}={wanted!r}, which its search never takes; use one of {list(choices)}",
                )
            if choices is None:
                raise SpecError(
                    where,
                    f"`when` requires {field}={wanted!r}, but {field} is searched over a range; use `values` there",
                )
            continue
        try:
            fixed = get_dotted(base, field)
        except KeyError:
            if is_open(field) and field.partition(".")[0] not in parts.settings:
                continue  # a default that only the part knows
            raise SpecError(
                where, f"`when` names the field {field!r}, which does not exist{_near(field)}; correct its name"
            ) from None
        if not same(fixed, wanted):
            raise SpecError(
                where,
                f"`when` requires {field}={wanted!r}, but it is fixed at {fixed!r}; search {field} too, or drop the parameter",
            )


def own_point(spec: StudySpec, arm: str) -> dict[str, Any] | None:
    """The point of an arm's space that is the spec's own values, as its lists spell them.

    None where a value lies outside of its list or range, or a searched field, such as a model's option, is left to a
    default.
    """
    base, parameters = base_values(spec, arm), spec.parameters_of(arm)
    point: dict[str, Any] = {}
    for field in active(parameters, {}, base):
        parameter = parameters[field]
        try:
            value = get_dotted(base, field)
        except KeyError:
            return None
        if parameter.values is not None:
            found = [
                choice
                for choice in parameter.values
                if same(choice, value) or same(_taken(spec, arm, arm, field, choice, parameter.when, NO_PARTS), value)
            ]
            if not found:
                return None
            point[field] = found[0]
        elif parameter.expression is not None:
            try:
                point[field] = parameter.expression.taken(str(value))
            except ValueError:
                return None
        elif _inside(parameter, value):
            point[field] = value
        else:
            return None
    return point


def _inside(parameter: Parameter, value: Any) -> bool:
    assert parameter.min is not None
    assert parameter.max is not None
    whole = isinstance(value, int) or not parameter.is_integer
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and whole and parameter.min <= value <= parameter.max


def values_of(parameter: Parameter) -> Sequence[Any] | None:
    """What a parameter can be, one after the other; None for a range of floats and for formulas."""
    if parameter.values is not None:
        return parameter.values
    if parameter.is_integer:
        return range(int(parameter.min or 0), int(parameter.max or 0) + 1)
    return None


def points_left(spec: StudySpec, arm: str, random: Random | None = None) -> Iterator[dict[str, Any]]:
    """The different points of an arm's space, listed lazily; without end where it has a range of floats.

    Args:
        spec: The study.
        arm: The arm.
        random: Where each list begins, and the values of ranges of floats; None: at its beginning.
    """
    parameters, base = spec.parameters_of(arm), base_values(spec, arm)

    def choices(parameter: Parameter) -> Iterator[Any]:
        values = values_of(parameter)
        if values is not None:
            start = random.randrange(len(values)) if random is not None else 0
            return (values[(start + index) % len(values)] for index in range(len(values)))
        low, high = float(parameter.min or 0), float(parameter.max or 0)
        share = random.random if random is not None else Random(0).random
        if parameter.log:
            return (low * (high / low) ** share() for _ in itertools.count())
        return (low + (high - low) * share() for _ in itertools.count())

    # A stack of the points that differ in one field more, rather than a call within a call: there may be many fields.
    stack: list[Iterator[dict[str, Any]]] = [iter([{}])]
    while stack:
        point = next(stack[-1], None)
        if point is None:
            stack.pop()
            continue
        waiting = [field for field in parameters if field not in point]
        ready = [
            field
            for field in active({field: parameters[field] for field in waiting}, point, base)
            if not any(other in waiting for other in parameters[field].when)
        ]
        if ready:
            stack.append(_with(point, ready[0], choices(parameters[ready[0]])))
        else:
            yield point


def _with(point: Mapping[str, Any], field: str, values: Iterator[Any]) -> Iterator[dict[str, Any]]:
    return ({**point, field: value} for value in values)


def planned(spec: StudySpec, arm: str, trials: int | None = None) -> int:
    """Search trials that an arm runs: as many as it asks for, or one for each point of its space, where those are fewer.

    Args:
        spec: The study.
        arm: The arm.
        trials: How many it asks for; None: what the spec says.
    """
    asked, parameters = trials or spec.arms[arm].trials, spec.parameters_of(arm)
    if any(values_of(parameter) is None and not parameter.when for parameter in parameters.values()):
        return asked
    if not any(parameter.when for parameter in parameters.values()):
        return min(asked, math.prod(len(values_of(parameter) or ()) for parameter in parameters.values()))
    return sum(1 for _ in itertools.islice(points_left(spec, arm), asked))
