"""Names of a package that are imported when they are first used: the engine needs torch alone, the rest of `olfl_ray` more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: Its name.
        modules: Each name, and the module of the package that has it.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "olfl_ray":
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs {error.name!r}, which is not installed: only the engine runs with torch alone; "
                "install the rest with `pip install olfl_ray`",
                name=error.name,
            ) from None

    return attribute
