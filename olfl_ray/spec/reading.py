"""From YAML text to a checked spec: every error names its field, value, rule and line."""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from olfl_ray.errors import SpecError
from olfl_ray.plugins import nearest
from olfl_ray.spec.points import check_search, plain, set_dotted
from olfl_ray.spec.secrets import without_secrets
from olfl_ray.spec.study import StudySpec, default_arm

__all__ = ["parse_as", "parse_spec", "read_spec", "spec_as_yaml"]

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 50

Model = TypeVar("Model", bound=BaseModel)


def read_spec(path: str | Path, overrides: Sequence[str] = (), name: str | None = None) -> StudySpec:
    """Read a study's spec from a YAML file.

    Args:
        path: The file; `-` is standard input.
        overrides: `a.b=c` texts, the values in YAML.
        name: Replaces the study's name.

    Raises:
        SpecError: The file or a field of it breaks a rule.
    """
    if str(path) == "-":
        return parse_spec(sys.stdin.buffer.read(), source="standard input", overrides=overrides, name=name)
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise SpecError("", "is a folder, not a spec file; name a YAML file", str(path)) from None
    except OSError as error:
        raise SpecError("", f"can't be read ({error.strerror}); name a YAML file that exists", str(path)) from None
    return parse_spec(data, source=str(path), overrides=overrides, name=name)


def parse_spec(
    data: bytes, *, source: str = "spec", overrides: Sequence[str] = (), name: str | None = None
) -> StudySpec:
    """Parse and check a spec; see `read_spec`."""
    node, plain_data = _load(data, source)
    if not isinstance(plain_data, dict):
        raise SpecError("", "must be a mapping of fields (name: ..., task: ..., search: ...)", source)
    given = [_override(text) for text in overrides]
    for field, value in given:
        _require_arm(field, plain_data)
        set_dotted(plain_data, field, _load(value.encode(), f"--set {field}")[1])
    if name is not None:
        plain_data["name"] = name
    try:
        return _checked(StudySpec, plain_data, node, source, check_search)
    except SpecError as error:
        if name is not None and error.field == "name":
            raise SpecError(error.field, error.problem, "--name") from None
        if any(_overlap(field, error.field) for field, _ in given):
            raise SpecError(error.field, error.problem, "--set") from None
        raise


def _override(text: str) -> tuple[str, str]:
    """Field and value of `a.b=c`."""
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise SpecError("--set", f"{without_secrets(text)!r} is not of the form field=value, such as learner.steps=500")
    return field.strip(), value


def _require_arm(field: str, data: dict[str, Any]) -> None:
    """Refuse to make an arm by setting a field of it: its name is more likely mistyped."""
    head, _, rest = field.partition(".")
    arms = data.get("arms") or {default_arm(data): {}}
    if head != "arms" or "." not in rest or not isinstance(arms, dict):
        return
    if not any(rest.startswith(f"{arm}.") for arm in arms):
        arm = rest.partition(".")[0]
        there = ", ".join(map(str, arms))
        raise SpecError(
            f"--set {field}", f"there is no arm {arm!r}{nearest(arm, list(map(str, arms)))}; there are: {there}"
        )


def _overlap(one: str, other: str) -> bool:
    """Whether one of two dotted fields lies in the other."""
    return bool(other) and (f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."))


def parse_as(model: type[Model], data: bytes, *, source: str) -> Model:
    """Parse YAML of another strict kind than a study's (a file of settings, say), with the same errors."""
    node, plain_data = _load(data, source)
    return _checked(model, plain_data, node, source)


def _checked(
    model: type[Model],
    plain_data: Any,
    node: Node | None,
    source: str,
    check: Callable[[Model], None] = lambda _: None,
) -> Model:
    try:
        found = model.model_validate(plain_data)
        check(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = _field(first["loc"], plain_data, missing=first["type"] == "missing")
        problem = plain(first)
        if first["type"] == "extra_forbidden":
            problem += _did_you_mean(model, field)
        raise SpecError(field, problem, _where(source, node, field)) from None
    except SpecError as error:
        raise SpecError(error.field, error.problem, _where(source, node, error.field)) from None
    return found


def spec_as_yaml(spec: StudySpec) -> str:
    """A resolved spec as the YAML that `read_spec` reads."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False  # type: ignore[assignment]
    yaml.dump(spec.model_dump(mode="json", by_alias=True), text)
    return text.getvalue()


def _field(loc: tuple[Any, ...], data: Any, *, missing: bool) -> str:
    """The dotted field of a pydantic location, without the names of union members that pydantic adds.

    Args:
        loc: The location.
        data: What was validated.
        missing: Whether it is the last part that the data lack.
    """
    parts: list[str] = []
    here = data
    for index, part in enumerate(loc):
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
        elif not (missing and index == len(loc) - 1):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _did_you_mean(model: Any, field: str) -> str:
    *path, last = field.split(".")
    for part in path:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        model = annotation if hasattr(annotation, "model_fields") else None
        if model is None:
            return ""
    near = difflib.get_close_matches(last, [info.alias or key for key, info in model.model_fields.items()], 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _load(data: bytes, source: str) -> tuple[Node | None, Any]:
    if len(data) > MAX_BYTES:
        raise SpecError("", f"is {len(data)} bytes long; a spec has at most {MAX_BYTES}", source)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError("", f"is not text in UTF-8 (byte {error.start}); save it as UTF-8", source) from None
    if not text.strip():
        raise SpecError("", "is empty; a spec needs at least name, task.dataset and search", source)
    yaml = YAML(typ="safe", pure=True)
    try:
        depth = 0
        for event in yaml.parse(io.StringIO(text)):
            kind = type(event).__name__
            depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
            if depth > MAX_DEPTH:
                raise SpecError("", f"is nested deeper than {MAX_DEPTH} levels; flatten it", source)
        node = YAML(typ="safe", pure=True).compose(io.StringIO(text))
        if _size(node, {}, set()) > MAX_NODES:
            raise SpecError("", f"has more than {MAX_NODES} values once its aliases are expanded; drop aliases", source)
        return node, YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        hint = "; indent with spaces, not tabs" if "\\t" in reason or "\t" in text else "; correct it"
        raise SpecError("", f"is not valid YAML: {reason}{hint}", f"{source}{line}") from None
    except (ValueError, RecursionError, TypeError) as error:
        raise SpecError("", f"is not valid YAML: {str(error).splitlines()[0]}; correct it", source) from None


def _size(node: Node | None, known: dict[int, int], open_: set[int]) -> int:
    """Number of values with every alias expanded; a node inside itself counts as too large."""
    if node is None or isinstance(node, ScalarNode):
        return 1
    if id(node) in open_:
        return MAX_NODES + 1
    if id(node) not in known:
        open_.add(id(node))
        children = [child for pair in node.value for child in pair] if isinstance(node, MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known, open_) for child in children)
        open_.discard(id(node))
    return known[id(node)]


def _where(source: str, node: Node | None, field: str) -> str:
    """File and line of a dotted field: of its deepest part that the file has."""
    line = None
    rest = field
    while node is not None and rest:
        if isinstance(node, MappingNode):
            found = [(key, value) for key, value in node.value if rest == key.value or rest.startswith(f"{key.value}.")]
            if not found:
                break
            key, node = max(found, key=lambda pair: len(pair[0].value))
            line, rest = key.start_mark.line + 1, rest[len(key.value) + 1 :]
        elif isinstance(node, SequenceNode):
            head, _, rest = rest.partition(".")
            if not head.isdigit() or int(head) >= len(node.value):
                break
            node = node.value[int(head)]
            line = node.start_mark.line + 1
        else:
            break
    return f"{source}:{line}" if line is not None else source
