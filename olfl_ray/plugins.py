"""Import a user's builder by its dotted name, `package.module:builder`: this runs code, so a reader must allow it first."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from olfl_ray.errors import SpecError

__all__ = ["allows", "check_call", "digest_of_code", "load_builder", "name_of_builder", "nearest"]


def load_builder(dotted: str, field: str, gives: tuple[type, ...] = ()) -> Callable[..., Any]:
    """Import `package.module:builder`, and check that it can return what is expected before it is called.

    Args:
        dotted: The name.
        field: Field of the spec that holds the name, for messages.
        gives: Types that the builder may return: a class must be a subclass of one of them, and a function's return
            annotation, if any, must match one of them. Empty: any.

    Raises:
        SpecError: It can't be imported, is neither a class nor a function, is in the standard library, or returns another type.
    """
    module_name, _, attribute = dotted.partition(":")
    _refuse_standard(module_name, dotted, field)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that calls sys.exit must not end the study
        raise SpecError(
            field,
            f"{dotted!r} can't be imported ({type(error).__name__}: {error}); install it, add its folder to PYTHONPATH "
            "(on a cluster: `py_modules=`), or correct the name",
        ) from error
    builder = getattr(module, attribute, None)
    if builder is None:
        raise SpecError(
            field, f"{module_name!r} has no {attribute!r}{nearest(attribute, dir(module))}; correct the name"
        )
    if not callable(builder):
        raise SpecError(field, f"{dotted!r} is a {type(builder).__name__}, not a function; name a builder")
    _refuse_type(builder, gives, dotted, field)
    result: Callable[..., Any] = builder
    return result


def allows(allow: Iterable[str], dotted: str) -> bool:
    """Whether a reader's list allows a builder: by its full name, its module, or a package above the module."""
    module = dotted.partition(":")[0]
    return any(name and (name == dotted or f"{module}.".startswith(f"{name}.")) for name in allow)


def digest_of_code(dotted: str) -> tuple[str, str]:
    """The module that a builder comes from, and the SHA-256 of its source (of nothing, if it has no source).

    Args:
        dotted: `package.module:builder`.
    """
    name = dotted.partition(":")[0]
    origin = getattr(importlib.import_module(name), "__file__", None)
    source = Path(origin).read_bytes() if origin is not None and Path(origin).is_file() else b""
    return name, hashlib.sha256(source).hexdigest()


def nearest(name: str, names: list[str]) -> str:
    """` (did you mean ...?)`, or an empty string."""
    found = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _refuse_standard(module: str | None, dotted: str, field: str) -> None:
    """Refuse modules of the standard library: they have no builders, but functions that run commands and read files."""
    if (module or "").partition(".")[0] in sys.stdlib_module_names:
        raise SpecError(
            field, f"{dotted!r} is in Python's standard library, which has no builders; name one of your own"
        )


def _refuse_type(builder: Callable[..., Any], gives: tuple[type, ...], dotted: str, field: str) -> None:
    found: Any = builder
    while isinstance(found, functools.partial):
        found = found.func
    found = inspect.unwrap(found)
    named = isinstance(found, type) or inspect.isroutine(found)
    _refuse_standard(getattr(found if named else type(found), "__module__", None), dotted, field)
    if not gives:
        return
    given = found if isinstance(found, type) else _annotated(found)
    if isinstance(given, type) and not any(issubclass(given, one) or issubclass(one, given) for one in gives):
        wanted = " or ".join(one.__name__ for one in gives)
        raise SpecError(field, f"{dotted!r} returns a {given.__name__}; it must return a {wanted}")


def _annotated(function: Any) -> Any:
    """A function's return annotation without type arguments; None if there is none or it can't be resolved."""
    try:
        hint = typing.get_type_hints(function).get("return")
    except Exception:  # names that are imported only for type checkers, for example
        return None
    return typing.get_origin(hint) or hint


def name_of_builder(given: Any) -> str:
    """The `package.module:builder` of a function or class, under which another process finds the same one.

    Args:
        given: The function or class.

    Raises:
        ValueError: No other process finds it; says why, and what to do.
    """
    if isinstance(given, functools.partial):
        raise ValueError(
            f"a functools.partial of {_shown(given.func)} has no name; pass the function, and its arguments as options: "
            "{'name': function, 'option': value}"
        )
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(
            f"{_shown(given)} has no name that another process can import; pass a function or a class of a module"
        )
    if "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if "<lambda>" in name else "defined inside a function"
        raise ValueError(
            f"{name} is {kind}, which the trials' processes can't import; define it with a name at the top level of a module"
        )
    if module == "__main__":
        raise ValueError(
            f"{name} is defined in the script or notebook that runs, which the trials' processes can't import; move it to a "
            f"module next to it (say builders.py), and pass it after `from builders import {name}`"
        )
    if getattr(sys.modules.get(module), name, None) is not given:
        raise ValueError(
            f"{module}:{name} is not this {type(given).__name__}, so the trials' processes would import another one; define "
            "it under its own name at the top level of that module, or import the module again"
        )
    return f"{module}:{name}"


def _shown(given: Any) -> str:
    return getattr(given, "__qualname__", None) or f"a {type(given).__name__}"


def check_call(
    name: str, builder: Callable[..., Any], options: Mapping[str, Any], field: str, first: tuple[str, ...] = ()
) -> None:
    """Refuse settings that a builder does not take; where its parameters are not known, the call says so.

    Args:
        name: Its name in the spec.
        builder: A class or function.
        options: The settings, its keyword arguments.
        field: Field of the spec that holds them.
        first: Names for what the caller gives before them: the builder's first parameters, whatever they are called.

    Raises:
        SpecError: Names the setting that is unknown or missing.
    """
    try:
        parameters = list(inspect.signature(builder).parameters.values())
    except (TypeError, ValueError):
        return
    ahead = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)][: len(first)]
    if len(ahead) < len(first) and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        raise SpecError(field, f"{name!r} must take {', '.join(first)}; add the parameter")
    parameters = [one for one in parameters if one not in ahead]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        for option in options:
            if option not in known:
                raise SpecError(
                    f"{field}.{option}",
                    f"{name!r} has no parameter {option!r}{nearest(option, known)}; it has {', '.join(known) or 'none'}",
                )
    for one in parameters:
        if (
            one.default is one.empty
            and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            and one.name not in options
        ):
            raise SpecError(f"{field}.{one.name}", f"{name!r} needs this setting; add it")
