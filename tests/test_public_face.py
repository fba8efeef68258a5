"""The public API of each package: `__all__` is sorted, complete and documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import olfl_ray

PACKAGES = ["olfl_ray", *(f"olfl_ray.{found.name}" for found in pkgutil.iter_modules(olfl_ray.__path__) if found.ispkg)]


def ordered(names: list[str]) -> list[str]:
    """In ruff's order: constants, then classes, then the others."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_sorted_and_exist(package: str) -> None:
    module: ModuleType = importlib.import_module(package)
    assert inspect.getdoc(module)
    names = list(module.__all__)
    assert names == ordered(names)
    assert len(names) == len(set(names))
    assert set(names) <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_and_classes_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    lacking = [
        name
        for name in module.__all__
        if (inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)))
        and not (getattr(module, name).__doc__ or "").strip()
    ]
    assert lacking == []
