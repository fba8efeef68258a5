"""From a study to a trial's settings: dotted overrides, and the check that a search space fits its fields."""

from __future__ import annotations

import copy
import difflib
import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from olfl_ray.errors import SpecError
from olfl_ray.spec import sections
from olfl_ray.spec.study import Parameter, StudySpec, TrialConfig

__all__ = ["active", "base_values", "check_search", "get_dotted", "seed_of", "set_dotted", "trial_config"]

TRIAL_SECTIONS = ("task", "learner", "loss", "meta", "eval")


def seed_of(*parts: object) -> int:
    """A seed below 2^31 from anything with a stable text: the same parts give the same seed on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1


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
    if last == "name" and here.get("name", value) != value:
        known = _fields_of(path, value)
        if known is not None:
            for key in [key for key in here if key not in known]:
                del here[key]
    here[last] = copy.deepcopy(value)  # a field below it may be set next, and the value is the spec's own


def _fields_of(path: list[str], name: Any) -> set[str] | None:
    """Fields of the section kind called `name` at a dotted path; None where the kinds have no fixed fields."""
    union = {
        "learner.fixed_loss": sections.FixedLoss,
        "learner.optimizer": sections.OptimizerSpec,
        "learner.schedule": sections.ScheduleSpec,
        "loss.activation": sections.Activation,
    }.get(".".join(path))
    if union is None:
        return None
    kinds: list[Any] = [get_args(kind)[0] if get_args(kind) else kind for kind in get_args(get_args(union)[0])]
    for kind in kinds:
        if name in get_args(kind.model_fields["name"].annotation):
            return set(kind.model_fields)
    return None


def base_values(spec: StudySpec, arm: str) -> dict[str, Any]:
    """The arm's settings before its search, as plain data."""
    data: dict[str, Any] = {name: getattr(spec, name).model_dump(mode="json", by_alias=True) for name in TRIAL_SECTIONS}
    for field, value in _outer_first(spec.arms[arm].set):
        _require_trial_field(f"arms.{arm}.set.{field}", field)
        set_dotted(data, field, value)
    return data


def _outer_first(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """In an order in which neither a section nor a new `name` undoes what is set inside or beside it."""
    return sorted(fields.items(), key=lambda item: (item[0].count("."), not item[0].endswith(".name")))


def active(parameters: Mapping[str, Parameter], params: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Names of the parameters whose `when` holds at this point, in the order of the spec."""

    def value_of(field: str) -> Any:
        return params[field] if field in params else get_dotted(base, field)

    names = []
    for name, parameter in parameters.items():
        try:
            if all(value_of(field) == wanted for field, wanted in parameter.when.items()):
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
    return _validated(data, spec, seeds, confirming, f"arms.{arm}")


def _validated(
    data: dict[str, Any], spec: StudySpec, seeds: tuple[int, ...], confirming: bool, where: str
) -> TrialConfig:
    try:
        return TrialConfig.model_validate({**data, "study_seed": spec.seed, "seeds": seeds, "confirming": confirming})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("tagged", "function")))
        raise SpecError(where, f"{field}: {plain(first)}") from None


def plain(error: Any) -> str:
    """A pydantic error as one sentence with the value and the rule."""
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return "there is no such field; remove it or correct its name"
    if kind == "missing":
        return "this field is required; add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message
    shown = repr(value)
    return f"{message}, but it is {shown if len(shown) <= 80 else shown[:77] + '...'} ({type(value).__name__})"


def _require_trial_field(where: str, field: str) -> None:
    head = field.split(".")[0]
    if head not in TRIAL_SECTIONS or "." not in field:
        raise SpecError(where, f"there is no field {field!r} in a trial; use one of {', '.join(TRIAL_SECTIONS)}.*")


def check_search(spec: StudySpec) -> None:
    """Check the form of every arm's search space: fields exist, ends of ranges fit, conditions can hold.

    Raises:
        SpecError: Names the parameter, the value and the rule.
    """
    for arm in spec.arms:
        base = base_values(spec, arm)
        trial_config(spec, arm, {}, seeds=(0,))
        parameters = spec.parameters_of(arm)
        if spec.search.sampler.name == "grid":
            _check_grid(arm, spec.arms[arm].trials, parameters)
        if spec.search.sampler.name == "cmaes":
            _check_moved(arm, parameters)
        for field, parameter in parameters.items():
            own = field in spec.arms[arm].parameters
            where = f"arms.{arm}.parameters.{field}" if own else f"search.parameters.{field}"
            _require_trial_field(where, field)
            _check_condition(where, parameter, parameters, base)
            if spec.search.sampler.name == "grid" and (parameter.values is None or parameter.when):
                raise SpecError(where, "the grid sampler needs `values` and no `when`; list the values, or use tpe")
            for value in parameter.extremes():
                data = base_values(spec, arm)
                for other, wanted in itertools.chain(parameter.when.items(), [(field, value)]):
                    set_dotted(data, other, wanted)
                _check_point(where, field, data, spec)


def _check_grid(arm: str, trials: int, parameters: Mapping[str, Parameter]) -> None:
    if any(parameter.values is None for parameter in parameters.values()):
        return
    points = math.prod(len(parameter.values or ()) for parameter in parameters.values())
    if trials > points:
        raise SpecError(
            f"arms.{arm}.trials", f"the grid has {points} points, but trials={trials}; ask for at most {points}"
        )


def _check_moved(arm: str, parameters: Mapping[str, Parameter]) -> None:
    """CMA-ES would leave all of the arm's fields to chance, which is not what was asked for."""
    moved = [
        field
        for field, parameter in parameters.items()
        if parameter.values is None and not any(other in parameters for other in parameter.when)
    ]
    if parameters and not moved:
        raise SpecError(
            "search.sampler",
            f"cmaes moves ranges that are searched in every trial, and arm {arm!r} has none; use tpe, or search one",
        )


def _check_point(where: str, field: str, data: dict[str, Any], spec: StudySpec) -> None:
    try:
        config = _validated(data, spec, (0,), False, where)
        get_dotted(config.model_dump(mode="json", by_alias=True), field)
    except KeyError:
        raise SpecError(where, f"there is no field {field!r}; correct its name") from None
    except SpecError as error:
        if "no such field" in error.problem:
            raise SpecError(where, f"there is no field {field!r}{_nearest(field, spec)}; correct its name") from None
        raise


def _nearest(field: str, spec: StudySpec) -> str:
    flat: list[str] = []

    def walk(prefix: str, data: Any) -> None:
        for key, value in data.items():
            flat.append(prefix + key)
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)

    walk("", {name: getattr(spec, name).model_dump(mode="json", by_alias=True) for name in TRIAL_SECTIONS})
    near = difflib.get_close_matches(field, flat, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _check_condition(
    where: str, parameter: Parameter, parameters: Mapping[str, Parameter], base: Mapping[str, Any]
) -> None:
    for field, wanted in parameter.when.items():
        if field in parameters:
            choices = parameters[field].values
            if choices is not None and wanted not in choices:
                raise SpecError(
                    where, f"`when` asks {field}={wanted!r}, which its search never takes; use one of {list(choices)}"
                )
            if choices is None:
                raise SpecError(
                    where, f"`when` asks {field}={wanted!r}, but {field} is searched over a range; use `values` there"
                )
            continue
        try:
            fixed = get_dotted(base, field)
        except KeyError:
            raise SpecError(
                where, f"`when` names the field {field!r}, which does not exist; correct its name"
            ) from None
        if fixed != wanted:
            raise SpecError(
                where,
                f"`when` asks {field}={wanted!r}, but it is fixed at {fixed!r}; search {field} too, or drop the parameter",
            )
