"""From YAML text to a checked spec: every error names its field, value, rule and line."""

from __future__ import annotations

import io
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from olfl_ray.errors import SpecError
from olfl_ray.plugins import nearest
from olfl_ray.spec.given import as_plain
from olfl_ray.spec.parameter import Parameter
from olfl_ray.spec.points import dotted, plain, set_dotted
from olfl_ray.spec.secrets import without_secrets
from olfl_ray.spec.space import resolve_search
from olfl_ray.spec.study import StudySpec, default_arm
from olfl_ray.spec.suggest import did_you_mean

__all__ = ["located", "parse_as", "parse_fields", "parse_spec", "read_bounded", "read_spec", "spec_as_yaml"]

MAX_BYTES = 1_000_000

Model = TypeVar("Model", bound=BaseModel)


def read_spec(
    path: str | Path, overrides: Sequence[str] = (), name: str | None = None, arm: str | None = None
) -> StudySpec:
    """Read a study's spec from a YAML file.

    Args:
        path: The file; `-` is standard input.
        overrides: `a.b=c` texts, the values in YAML.
        name: Replaces the study's name.
        arm: The only arm that counts: overrides must act there; None: in all of them.

    Raises:
        SpecError: The file or a field of it breaks a rule.
    """
    if str(path) == "-":
        if sys.stdin is None:  # closed by whoever started this
            raise SpecError("", "is closed; pipe a spec into it, or name a YAML file", "standard input")
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        return parse_spec(data, source="standard input", overrides=overrides, name=name, arm=arm)
    data = read_bounded(path)
    return parse_spec(data, source=str(path), overrides=overrides, name=name, arm=arm)


def read_bounded(path: str | Path) -> bytes:
    """The bytes of a file, at most one more than a spec may have.

    Raises:
        SpecError: It can't be read, or is no file: a pipe may have no writer, and a device no end.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode):
                return file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        mode = stat.S_IFDIR
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError("", f"can't be read ({reason}); name a YAML file that exists", str(path)) from None
    what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise SpecError("", f"is {what}, not a spec file; name a YAML file, or pipe it in and name it -", str(path))


@contextmanager
def located(path: str | Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Add the file and line to an error about a field that is found only after the spec was read.

    Args:
        path: The spec's file.
        overrides: Those that it was read with.

    Raises:
        SpecError: The same, with its position.
    """
    try:
        yield
    except SpecError as error:
        if error.where or not error.field or str(path) == "-":
            raise
        if any(_overlap(text.partition("=")[0].strip(), error.field) for text in overrides):
            where = "--set"
        else:
            where = _where(str(path), _load(read_bounded(path), str(path))[0], error.field)
        raise SpecError(error.field, error.problem, where) from error.__cause__


def parse_spec(
    data: bytes,
    *,
    source: str = "spec",
    overrides: Sequence[str] = (),
    name: str | None = None,
    arm: str | None = None,
) -> StudySpec:
    """Parse and check a spec; see `read_spec`."""
    node, plain_data = _load(data, source)
    if not isinstance(plain_data, dict):
        raise SpecError("", "must be a mapping of fields (name: ..., task: ..., search: ...)", source)
    given = [_override(text) for text in overrides]
    for field, value in given:
        _set(plain_data, field, _load(value.encode(), f"--set {field}")[1])
        _refuse_hidden(plain_data, field, arm)
    if name is not None:
        plain_data["name"] = name
    try:
        return _checked(StudySpec, plain_data, node, source, resolve_search)
    except SpecError as error:
        if name is not None and error.field == "name":
            raise SpecError("", error.problem, "--name") from None
        if any(_overlap(field, error.field) for field, _ in given):
            raise SpecError(error.field, error.problem, "--set") from None
        raise


def parse_fields(fields: Mapping[str, Any]) -> StudySpec:
    """Check a spec that a Python program gives; the same rules and errors as for YAML.

    Args:
        fields: Field -> mapping or settings; a builder may be a function or a class instead of its dotted name.

    Raises:
        SpecError: A field breaks a rule.
    """
    return _checked(StudySpec, as_plain(dict(fields)), None, "", resolve_search)


def _override(text: str) -> tuple[str, str]:
    """Field and value of `a.b=c`."""
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise SpecError("--set", f"{without_secrets(text)!r} is not of the form field=value, such as learner.steps=500")
    if not _is_text(text):
        raise SpecError("--set", f"{without_secrets(text)!r} is not text in UTF-8; write it in UTF-8")
    return field.strip(), value


def _set(data: dict[str, Any], field: str, value: Any) -> None:
    """Set an overridden field. Arms, and the fields that are searched or set, have names with dots of their own."""
    head, _, inner = field.partition(".")
    own = data
    if head == "arms" and "." in inner:
        arm = _arm(field, inner, data)
        own, inner = _section(_section(data, "arms", field), arm, field), inner.removeprefix(f"{arm}.")
    elif head == "search":
        own = _section(data, "search", field)
    section, _, name = inner.partition(".")
    if own is data or not name or section not in ("parameters", "set"):
        set_dotted(own, field if own is data else inner, value)
        return
    named = _section(own, section, field)
    before, _, last = name.rpartition(".")
    if section == "parameters" and before and last in Parameter.model_fields:
        named, name = _section(named, before, field), last
    named[name] = value


def _refuse_hidden(data: dict[str, Any], field: str, only: str | None) -> None:
    """Refuse to set a field that an arm sets itself: the arm's value would win, and the option would do nothing there."""
    arms = data.get("arms")
    for arm, own in (arms if isinstance(arms, dict) else {}).items():
        if only not in (None, arm):
            continue
        fields = own.get("set") if isinstance(own, dict) else None
        for name in fields if isinstance(fields, dict) else {}:
            if f"{field}.".startswith(f"{name}."):
                raise SpecError(
                    f"--set {field}",
                    f"arm {arm} sets {name} itself, which wins there; use --set arms.{arm}.set.{field}=...",
                )


def _section(data: dict[str, Any], name: str, field: str) -> dict[str, Any]:
    """A section of a spec's plain values, made where it is not there."""
    found = data.setdefault(name, {})
    if not isinstance(found, dict):
        raise SpecError(f"--set {field}", f"`{name}` is not a section, it is {found!r}; name a field that exists")
    return found


def _arm(field: str, rest: str, data: dict[str, Any]) -> str:
    """The arm whose field is set. One that is not there is not made so: its name is more likely mistyped."""
    arms = data.get("arms") or {default_arm(data): {}}
    found = [str(arm) for arm in arms if rest.startswith(f"{arm}.")] if isinstance(arms, dict) else [""]
    if not found:
        name, there = rest.partition(".")[0], list(map(str, arms))
        raise SpecError(
            f"--set {field}", f"there is no arm {name!r}{nearest(name, there)}; there are: {', '.join(there)}"
        )
    return max(found, key=len)


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
    resolve: Callable[[Model], Model] = lambda found: found,
) -> Model:
    try:
        _check_plain(plain_data, "")
    except RecursionError:
        raise SpecError("", "is nested too deeply, or an alias in it contains itself; flatten it", source) from None
    except SpecError as error:
        raise SpecError(error.field, error.problem, _where(source, node, error.field)) from None
    try:
        return resolve(model.model_validate(plain_data))
    except ValidationError as error:
        first = error.errors()[0]
        field = dotted(first["loc"], plain_data, missing=first["type"] == "missing")
        problem = plain(first)
        if first["type"] == "extra_forbidden":
            problem += did_you_mean(model, field)
        raise SpecError(field, problem, _where(source, node, field)) from None
    except SpecError as error:
        raise SpecError(error.field, error.problem, _where(source, node, error.field)) from None


def _check_plain(value: Any, field: str) -> None:
    """Refuse values that YAML has and JSON does not: the ledger and the workers would see others in their place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) or not _is_text(key):
                raise SpecError(field, f"its key {key!r} ({type(key).__name__}) must be a string; put it in quotes")
            _check_plain(inner, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{field}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise SpecError(field, f"must be a finite number, but it is {value}; give a number, or null for none")
    elif isinstance(value, str) and not _is_text(value):
        raise SpecError(field, f"contains an incomplete character, {value!r}, which is not valid UTF-8; correct it")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise SpecError(
            field,
            f"is a {type(value).__name__}, but must be a string, a number, true, false, null, a list or a mapping; put it in "
            "quotes, or leave out its YAML tag",
        )


def _is_text(text: str) -> bool:
    """Whether it has a form in UTF-8: half of a surrogate pair has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def spec_as_yaml(spec: StudySpec) -> str:
    """A resolved spec as the YAML that `read_spec` reads."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False  # type: ignore[assignment]
    yaml.dump(spec.model_dump(mode="json", by_alias=True), text)
    return text.getvalue()


def _load(data: bytes, source: str) -> tuple[Node | None, Any]:
    if len(data) > MAX_BYTES:
        raise SpecError("", f"is longer than {MAX_BYTES} bytes, the maximum for a spec; shorten it", source)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError("", f"is not text in UTF-8 (byte {error.start}); save it as UTF-8", source) from None
    if not text.strip():
        raise SpecError("", "is empty; a spec needs at least name, task.dataset and search", source)
    yaml = YAML(typ="safe", pure=True)
    try:
        return yaml.compose(io.StringIO(text)), YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        hint = "; indent with spaces, not tabs" if "\\t" in reason or "\t" in text else "; correct it"
        raise SpecError("", f"is not valid YAML: {reason}{hint}", f"{source}{line}") from None
    except (ValueError, RecursionError, TypeError) as error:
        raise SpecError("", f"is not valid YAML: {str(error).splitlines()[0]}; correct it", source) from None


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
