"""Every field of a spec with its meaning and default, as YAML and as JSON Schema: made from the settings classes."""

from __future__ import annotations

import io
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from olfl_ray.engine import ESTIMATORS
from olfl_ray.losses import LEARNED
from olfl_ray.methods import METHODS
from olfl_ray.optimizers import OPTIMIZERS
from olfl_ray.pruners import PRUNERS
from olfl_ray.registry import Registry
from olfl_ray.schedules import SCHEDULES
from olfl_ray.search import SEARCHERS
from olfl_ray.spec import Strict, StudySpec
from olfl_ray.tasks import TASKS
from olfl_ray.tracking import TRACKERS

__all__ = ["complete_yaml", "schema"]

WIDTH = 110
OPEN: dict[str, Registry[Any]] = {"loss": LEARNED}
"""Open sections, with the parts whose settings they hold."""
SECTIONS: dict[str, Registry[Any]] = {
    "learner.optimizer": OPTIMIZERS,
    "learner.schedule": SCHEDULES,
    "search.pruner": PRUNERS,
}
"""Sections that name a part and hold all of its settings."""
PARTS: dict[str, Registry[Any]] = {
    "task.options": TASKS,
    "learner.method": METHODS,
    "meta.estimator": ESTIMATORS,
    "search.sampler": SEARCHERS,
    "tracking": TRACKERS,
    **SECTIONS,
}
"""Fields that name an implementation of a part."""
HEAD = """\
# Every field of a spec, with its meaning. All fields but name, task.dataset and search have defaults; this file shows them,
# and examples of the three. `olfl spec complete` prints it, `olfl spec schema` the JSON Schema, for editors.
"""
EXAMPLES: dict[str, Any] = {
    "name": "digits",
    "task.dataset": {"name": "digits"},
    "search.parameters": {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}},
    "arms": {
        "baseline": {"set": {"learner.method": "baseline"}, "trials": 8},
        "offline": {
            "set": {"learner.method": "offline"},
            "trials": 8,
            "parameters": {"meta.init_steps": {"values": [250, 500, 1000, 2000]}},
        },
        "online": {
            "set": {"learner.method": "online"},
            "trials": 8,
            "parameters": {
                "meta.eta_online": {"min": 1e-6, "max": 1e-2, "log": True},
                "loss.activation.gamma": {
                    "min": 0.001,
                    "max": 0.3,
                    "log": True,
                    "when": {"loss.activation.name": "smooth_leaky_relu"},
                },
            },
        },
    },
}
"""Values of the fields that have no default, and arms, whose default depends on the method."""


def complete_yaml() -> str:
    """The text of docs/complete.yaml."""
    return HEAD + "\n".join(_fields(StudySpec, "", 0)) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a spec. A section that names a part is one of the parts with its settings, or a user's own."""
    whole = StudySpec.model_json_schema()
    for field, part in {**OPEN, **SECTIONS}.items():
        kind = _section(field)
        own = whole["$defs"].pop(kind.__name__)
        choices = [_choice(whole, own, name, part.find(name, name).Config) for name in part.names()]
        named = {
            **own["properties"],
            "name": {"type": "string", "pattern": ":", "description": "`package.module:builder`."},
        }
        choices.append({**own, "properties": named, "required": ["name"], "title": "a user's own"})
        head = {key: own[key] for key in ("title", "description") if key in own}
        whole["$defs"][kind.__name__] = {**head, "anyOf": [*choices, {"type": "string"}]}
    return whole


def _section(field: str) -> type[BaseModel]:
    """The settings class of a dotted field."""
    found: type[BaseModel] = StudySpec
    for name in field.split("."):
        (found,) = _models(found.model_fields[name].annotation)
    return found


def _choice(whole: dict[str, Any], own: dict[str, Any], name: str, form: type[BaseModel]) -> dict[str, Any]:
    """An open section that names a built-in part."""
    settings = form.model_json_schema()
    whole["$defs"].update(settings.get("$defs", {}))
    default = own["properties"]["name"].get("default")
    names = {**own["properties"]["name"], "const": name}
    names.pop("pattern", None)
    return {
        "type": "object",
        "title": name,
        "properties": {**own["properties"], "name": names, **settings.get("properties", {})},
        "required": [*settings.get("required", []), *([] if name == default else ["name"])],
        "additionalProperties": False,
    }


def _fields(model: type[BaseModel], prefix: str, depth: int) -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = info.alias or name
        yield from _field(f"{prefix}{key}", key, info, depth)


def _field(field: str, key: str, info: FieldInfo, depth: int) -> Iterator[str]:
    indent, models = "  " * depth, list(_models(info.annotation))
    text = " ".join((info.description or "").split())
    if info.is_required():
        text = f"Required. {text}"
    for line in textwrap.wrap(text, WIDTH - len(indent)):
        yield f"{indent}# {line}"
    if field in PARTS:
        yield from (f"{indent}# {line}" for line in _implementations(PARTS[field], WIDTH - len(indent)))
    if field.removesuffix(".name") in OPEN and key == "name":
        part = OPEN[field.removesuffix(".name")]
        yield from (f"{indent}# {line}" for line in _named(part, info.default, WIDTH - len(indent)))
    if field in OPEN:
        yield f"{indent}{key}:"
        yield from _open_section(field, models[0], OPEN[field], depth + 1)
        return
    default = EXAMPLES.get(field, None if info.is_required() else info.get_default(call_default_factory=True))
    sections = [one for one in models if one.model_config.get("extra") == "forbid"]
    if len(sections) == 1 and field not in EXAMPLES and (info.is_required() or isinstance(default, sections[0])):
        yield f"{indent}{key}:"
        yield from _fields(sections[0], f"{field}.", depth + 1)
        return
    if len(sections) > 1:  # variants, told apart by their names
        yield from (f"{indent}# {line}" for one in sections for line in _variant(one, WIDTH - len(indent)))
    if field in EXAMPLES and isinstance(default, dict):
        yield from (f"{indent}{line}" for line in _yaml({key: default}, flow=None))
    else:
        yield f"{indent}{key}: {_inline(default)}"


def _open_section(field: str, model: type[BaseModel], part: Registry[Any], depth: int) -> Iterator[str]:
    """The section's own fields, then the settings of the part that is its default."""
    default = model.model_fields["name"].default
    yield from _fields(model, f"{field}.", depth)
    yield from _fields(part.find(default, default).Config, f"{field}.", depth)


def _named(part: Registry[Any], default: str, width: int) -> Iterator[str]:
    """Each built-in part; of all but the default, whose settings are fields of the document, with its settings."""
    for name in part.names():
        found = part.find(name, name)
        if name == default:
            yield from textwrap.wrap(f"- {name}: {_summary(found)} Settings: below.", width - 2, subsequent_indent="  ")
        else:
            yield from _with_meanings(name, found, width)


def _with_meanings(name: str, found: Any, width: int) -> Iterator[str]:
    """A part's name and summary, then each of its settings."""
    yield from textwrap.wrap(f"- {name}: {_summary(found)} Settings:", width - 2, subsequent_indent="  ")
    for key, info in found.Config.model_fields.items():
        default = "required" if info.is_required() else _inline(info.default)
        text = f"{info.alias or key} ({default}): {' '.join((info.description or '').split())}"
        yield from textwrap.wrap(text, width - 2, initial_indent="  - ", subsequent_indent="    ")


def _summary(of: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join((of.__doc__ or "").strip().partition("\n\n")[0].split())


def _implementations(part: Registry[Any], width: int) -> Iterator[str]:
    """Each built-in implementation's name with its settings and their defaults."""
    for name in part.names():
        found = part.find(name, name)
        yield from _listed_as(name, found, getattr(found, "Config", Strict).model_fields, width)


def _variant(model: type[BaseModel], width: int) -> Iterator[str]:
    """A variant's name with its own fields and their defaults."""
    names = "|".join(map(str, typing.get_args(model.model_fields["name"].annotation)))
    yield from _listed_as(names, model, model.model_fields, width)


def _listed_as(names: str, of: type, fields: Mapping[str, FieldInfo], width: int) -> Iterator[str]:
    own = [
        f"{name} ({'required' if info.is_required() else _inline(info.get_default(call_default_factory=True))})"
        for name, info in fields.items()
        if name != "name"
    ]
    head = f"- {names}: {_summary(of)}"
    yield from textwrap.wrap(f"{head} Fields: {', '.join(own)}." if own else head, width - 2, subsequent_indent="  ")


def _inline(value: Any) -> str:
    (line,) = _yaml({"x": value}, flow=True)
    return line.removeprefix("{x: ").removesuffix("}")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes that a field's annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        arguments = typing.get_args(annotation)
        for part in arguments[:1] if typing.get_origin(annotation) is typing.Annotated else arguments:
            yield from _models(part)


def _yaml(value: Any, *, flow: bool | None) -> list[str]:
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.width, yaml.default_flow_style = 10_000, flow
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(_listed(value), text)
    return text.getvalue().rstrip().splitlines()


def _listed(value: Any) -> Any:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value
