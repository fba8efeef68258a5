"""The pages of the reference that are made from code: settings.md and command-line.md. `make docs` writes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.cli import get_docs_for_click
from typer.main import get_command

from olfl_ray.cli.app import app
from olfl_ray.spec import ArmSpec, Parameter, StudySpec
from olfl_ray.study.reference import EXAMPLES, OPEN, PARTS, _inline, _models, _summary

HERE = Path(__file__).parent
NOTE = "<!-- Made from the code by docs/generate.py; `make docs` writes it again. -->\n\n"
SETTINGS = f"""{NOTE}# Settings

Every field of a spec, by section. [complete.yaml](complete.yaml) is the same as one YAML file; `olfl spec schema` prints the JSON
Schema. A field without a default is required. Where a section's default is a name, a name alone may stand for the section
(`model: lenet5`).

"""
COMMANDS = f"""{NOTE}# Command line

`olfl --install-completion` makes your shell complete commands, options and the names of studies. `python -m olfl_ray` is the same
as `olfl`. [json.md](json.md) describes what `--json` prints.

## Exit codes

| code | meaning |
|---|---|
| 0 | success |
| 1 | trials failed, or runs did not reach MLflow |
| 2 | an error that you can fix; one sentence says how |
| 70 | a bug of `olfl` |
| 130 | stopped |

## The home folder

Studies, prepared data and the default MLflow store are in the home folder: `--home`, else `OLFL_HOME`, else `./.olfl`. A spec's
`storage` can keep its study elsewhere, such as on `s3://`, with credentials from the environment.

A study is the folder `studies/NAME` in the home folder. To copy it, stop its driver, then `cp -r` the folder to another home folder
under the same name. The copy is independent, but it has the original's identity and shares its runs in MLflow: delete it with
`--keep-runs`.

## Environment variables

| variable | meaning |
|---|---|
| `OLFL_HOME` | the home folder, `./.olfl` by default |
| `OLFL_DATA` | folder from which data sets are read before anything is downloaded; digits and diabetes are bundled |
| `OLFL_CACHE` | folder of prepared data sets, `data` in the home folder by default |
| `OLFL_CONFIG` | file that names clusters, `~/.config/olfl/config.yaml` by default |
| `RAY_ADDRESS` | the Ray cluster on which trials run; without it, trials run on this machine |
| `MLFLOW_TRACKING_URI` | the MLflow store, if the spec names none |

## Commands

"""
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def settings() -> str:
    """The text of settings.md."""
    sections = {"": StudySpec, "An arm": ArmSpec, "A searched field": Parameter}
    return SETTINGS + "\n".join(line for name, model in sections.items() for line in _section(name, model))


def command_line() -> str:
    """The text of command-line.md."""
    command = get_command(app)
    context = command.make_context("olfl", [], resilient_parsing=True)
    _, _, text = get_docs_for_click(obj=command, ctx=context, name="olfl").partition("\n\n")
    return COMMANDS + text.strip() + "\n"


def _section(field: str, model: type[BaseModel]) -> Iterator[str]:
    """A heading, the fields as a table, then the sections and parts that they name."""
    yield from (f"## {field or 'The study'}", "", _text(model.__doc__), "")
    yield from _table(model)
    for name, info in model.model_fields.items():
        key = f"{field}.{info.alias or name}" if field else info.alias or name
        yield from _below(key, list(_models(info.annotation)), key in EXAMPLES)
        if key in PARTS or f"{key}.name" in PARTS or (key.removesuffix(".name") in OPEN and name == "name"):
            yield from _parts(key, PARTS.get(key) or OPEN[key.removesuffix(".name")])


def _below(key: str, models: list[type[BaseModel]], example: bool) -> Iterator[str]:
    sections = [one for one in models if one.model_config.get("extra") == "forbid" or key in OPEN]
    if len(sections) == 1 and not (example and key != "search"):
        yield from _section(key, sections[0])
    elif len(sections) > 1:
        for one in sections:
            default = one.model_fields["name"]
            names = " or ".join(f"`{name}`" for name in getattr(default.annotation, "__args__", ())) or "your own"
            yield from (f"### {key}: {names}", "", _text(one.__doc__), "")
            yield from _table(one, without=("name",))


def _parts(key: str, part: Any) -> Iterator[str]:
    """Each built-in implementation of a part, with its own settings."""
    yield from (f"### {key}: built in", "")
    for name in part.names():
        found = part.find(name, name)
        yield from (f"- `{name}`: {_text(_summary(found))}", "")
        config = getattr(found, "Config", None)
        if config is not None and config.model_fields:
            yield from (f"  {line}".rstrip() for line in _table(config))


def _table(model: type[BaseModel], without: tuple[str, ...] = ()) -> Iterator[str]:
    schema = model.model_json_schema()
    rows = []
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key in without:
            continue
        kind = _kind(schema["properties"][key], schema.get("$defs", {}))
        default = "" if info.is_required() else _default(info.get_default(call_default_factory=True))
        rows.append(f"| `{key}` | {kind} | {default} | {_text(info.description)} |")
    if rows:
        yield from ("| field | value | default | meaning |", "|---|---|---|---|", *rows, "")


def _default(value: Any) -> str:
    if (
        isinstance(value, BaseModel)
        and value.model_config.get("extra") == "forbid"
        and "name" not in type(value).model_fields
    ):
        return "see below"
    if isinstance(value, BaseModel) and "name" in type(value).model_fields:
        return f"`{value.name}`"  # type: ignore[attr-defined]
    return f"`{_inline(value)}`".replace("|", "\\|")


def _kind(schema: dict[str, Any], sections: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one, sections) for one in schema.get("anyOf", schema.get("oneOf"))))
    kind = schema.get("type")
    if kind == "array":
        inner = schema.get("items") or {}
        return f"list of {_kind(inner, sections)}" if inner else "list"
    if kind == "object":
        return "mapping"
    limits = [
        f"{sign} {schema[name]:g}" for name, sign in LIMITS.items() if name in schema and abs(schema[name]) < 10**9
    ]
    return f"{TYPES.get(str(kind), 'any')}{' ' + ', '.join(limits) if limits else ''}"


def _text(words: str | None) -> str:
    """One line for a table's cell."""
    return " ".join((words or "").split()).replace("|", "\\|").replace("<", "&lt;")


PAGES = {"settings.md": settings, "command-line.md": command_line}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (HERE / page).write_text(text(), encoding="utf-8")
        sys.stdout.write(f"wrote {HERE / page}\n")
