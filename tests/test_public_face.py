"""The public API of each package: `__all__` is sorted, complete and documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import version
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
    assert all(hasattr(module, name) for name in names)


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


def test_the_names_at_the_top_are_loaded_when_they_are_used() -> None:
    script = (
        "import sys, olfl_ray, olfl_ray.cli\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'pyarrow', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert olfl_ray.Study.__module__ == 'olfl_ray.study.handle'\n"
        "assert not {'ray', 'optuna', 'IPython'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_names_at_the_top_are_documented() -> None:
    assert {"OnlineLossLearner", "Study", "initialise", "list_studies", "load_loss"} <= set(olfl_ray.__all__)
    assert olfl_ray.__version__ == version("olfl_ray")
    for name in set(olfl_ray.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(olfl_ray, name)), name
    members = {name: value for name, value in vars(olfl_ray.Study).items() if not name.startswith("_")}
    assert all(inspect.getdoc(value) for value in members.values()), members
