"""A user's own builder by its dotted name, `package.module:builder`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from olfl_ray.errors import SpecError

__all__ = ["load_builder", "nearest"]


def load_builder(dotted: str, field: str) -> Callable[..., Any]:
    """Import `package.module:builder`.

    Args:
        dotted: The name.
        field: Field of the spec that has it, for messages.

    Raises:
        SpecError: It can't be imported, or is not callable.
    """
    module_name, _, attribute = dotted.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script that ends by sys.exit must not end the study
        raise SpecError(
            field,
            f"{dotted!r} can't be imported ({type(error).__name__}: {error}); install it, name its folder by PYTHONPATH "
            "(on a cluster: --py-module), or correct the name",
        ) from error
    builder = getattr(module, attribute, None)
    if builder is None:
        raise SpecError(
            field, f"{module_name!r} has no {attribute!r}{nearest(attribute, dir(module))}; correct the name"
        )
    if not callable(builder):
        raise SpecError(field, f"{dotted!r} is a {type(builder).__name__}, not a function; name a builder")
    result: Callable[..., Any] = builder
    return result


def nearest(name: str, names: list[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    found = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""
