"""From a name to its implementation: a built-in one is a module of its package, a user's is `package.module:Class`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Generic, TypeVar

from olfl_ray.errors import SpecError
from olfl_ray.plugins import load_builder, nearest

__all__ = ["Registry"]

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The implementations of one part.

    The built-in implementation called NAME is the public, concrete subclass of the part's base class in the module or
    package NAME of the part's package, so that a new file there is a new implementation and nothing else changes.

    Args:
        package: Dotted name of the package that holds the built-in implementations.
        base: The part's base class.
    """

    def __init__(self, package: str, base: type[Part]) -> None:
        self._package, self._base = package, base

    def names(self) -> list[str]:
        """Names of the built-in implementations."""
        folder = importlib.import_module(self._package).__path__
        return sorted(found.name for found in pkgutil.iter_modules(folder) if self._built_in(found.name) is not None)

    def find(self, name: str, field: str) -> type[Part]:
        """The class of a name.

        Args:
            name: Built-in name, or `package.module:Class`.
            field: Field of the spec that holds the name, for messages.

        Raises:
            SpecError: There is no such implementation, or it is not a subclass of the base class.
        """
        if ":" in name:
            found = load_builder(name, field)
            if not (isinstance(found, type) and issubclass(found, self._base)):
                raise SpecError(
                    field, f"{name!r} is not a subclass of {self._base.__name__}; derive it from that class"
                )
            return found
        built_in = self._built_in(name) if name.isidentifier() else None
        if built_in is None:
            names = self.names()
            raise SpecError(
                field,
                f"there is no {name!r}{nearest(name, names)}; use one of {', '.join(names)}, or package.module:Class",
            )
        return built_in

    def _built_in(self, name: str) -> type[Part] | None:
        dotted = f"{self._package}.{name}"
        try:
            module = importlib.import_module(dotted)
        except ModuleNotFoundError as error:
            if error.name == dotted:
                return None
            raise
        own = [
            value
            for key, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, self._base)
            and f"{value.__module__}.".startswith(f"{dotted}.")
            and value is not self._base
            and not inspect.isabstract(value)
            and not key.startswith("_")
        ]
        return own[0] if own else None
