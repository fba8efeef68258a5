"""The mutations that `make mutants` draws from, and its list of those that change nothing."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "mutants"
SOURCE = b'''
def near(left, right, *, allowed=0.5):
    """Whether two values are near."""
    if left is None:
        return False
    print(left, flush=True)
    assert allowed > 0
    return abs(left - right) <= allowed and not left < -1
'''


@pytest.fixture(scope="module")
def mutants() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    import mutations

    yield mutations
    sys.path.remove(str(FOLDER))


def test_each_mutation_is_one_edit_of_one_line(mutants: ModuleType) -> None:
    found = [one for one in mutants.mutations(SOURCE) if mutants.changes(SOURCE, one)]
    after = {one.after for one in found}
    assert after >= {
        "def near(left, right, *, allowed=1.0):",
        "if left is not None:",
        "if True:",
        "if False:",
        "return True",
        "pass",
        "print(left)",
        "print(left, flush=False)",
        "return abs(left + right) <= allowed and not left < -1",
        "return abs((right) - (left)) <= allowed and not left < -1",
        "return abs(left - right) < allowed and not left < -1",
        "return abs(left - right) <= allowed or not left < -1",
        "return abs(left - right) <= allowed and (left < -1)",
        "return abs(left - right) <= allowed and not left <= -1",
        "return abs(left - right) <= allowed and not left < (1)",
        "return abs(left - right) <= allowed and not left < -2",
    }
    assert not any("allowed >" in one.before for one in found), "assertions are not mutated"
    assert len({one.applied(SOURCE) for one in found}) == len(found)
    assert {one.line for one in found if one.before.startswith("return abs")} == {8}
    assert [one.inside for one in found][:1] == [False], "a default belongs to the import"


def test_instrumented_source_reports_each_statement_that_runs(mutants: ModuleType) -> None:
    hits: list[int] = []
    space: dict[str, object] = {}
    exec(mutants.watched(SOURCE, "near.py"), space)
    assert space["near"](1, 1) is True  # type: ignore[operator]
    space["mutants_hit"] = lambda file, line: hits.append(line)
    assert space["near"](None, 1) is False  # type: ignore[operator]
    assert [line for line in hits if line != 3] == [4, 5]


def test_every_listed_equivalent_is_a_mutation_of_the_current_code(mutants: ModuleType) -> None:
    listed = tomllib.loads((FOLDER / "equivalents.toml").read_text(encoding="utf-8"))["equivalent"]
    package = Path(__file__).parents[2] / "olfl_ray"
    for file in {one["file"] for one in listed}:
        known = {(one.before, one.after) for one in mutants.mutations((package / file).read_bytes())}
        for one in listed:
            assert one["file"] != file or (one["from"], one["to"]) in known, one
            assert one["why"]
