"""Every code block of README and docs is run or checked: commands are parsed, specs are read, Python runs."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.parsing import parse

from olfl_ray.methods import complete
from olfl_ray.remote.targets import Settings
from olfl_ray.spec import parse_fields
from olfl_ray.study.doctor import EXAMPLE

ROOT = Path(__file__).parents[2]
GENERATED = {"docs/command-line.md", "docs/settings.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if str(page.relative_to(ROOT)) not in GENERATED]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"^(?:\$ |\w+=\S+ )*(olfl .*)$", re.M)
PYTHON = {
    "README.md": "tests/study/test_docs_python.py",
    "docs/python.md": "tests/study/test_docs_python.py",
    "docs/own-loop.md": "tests/docs/test_own_loop.py",
    "docs/extending.md": "tests/extending/test_examples.py",
    "docs/own-data.md": "tests/docs/test_own_data.py",
    "docs/start.md": "",
    "docs/method.md": "",
}
"""Pages with blocks of Python -> the test that runs them; empty: this one."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind.partition(" ")[0] == language]


def commands(page: Path) -> list[str]:
    """The lines of `olfl` in the page's plain blocks; `[--option]` is one that may be left out."""
    texts = [text.replace("\\\n", " ") for text in blocks(page, "")]
    return [line.translate({ord("["): "", ord("]"): ""}) for text in texts for line in COMMAND.findall(text)]


def test_no_page_has_the_marks_of_a_merge() -> None:
    marked = re.compile(r"^(<{7}|>{7}) ", re.M)
    assert [page.name for page in PAGES if marked.search(page.read_text())] == []


def test_every_kind_of_block_has_a_check() -> None:
    kinds = {kind.partition(" ")[0] for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert kinds == {"", "python", "yaml", "{toctree}", "{include}"}
    assert {name_of(page) for page in PAGES if blocks(page, "python")} == set(PYTHON)
    for page, test in PYTHON.items():
        assert not test or Path(page).name in (ROOT / test).read_text(), page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_accepted(page: Path) -> None:
    for line in commands(page):
        parse(line)


def test_commands_are_found() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
    assert "olfl sweep resume digits" in " ".join(commands(ROOT / "README.md"))


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M)
        assert set(named) <= targets, page


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name_of)
def test_specs_are_accepted(page: Path) -> None:
    for text in blocks(page, "yaml"):
        fields: dict[str, Any] = YAML(typ="safe").load(text)
        if "targets" in fields:  # the settings file of a cluster's client
            Settings.model_validate(fields)
        else:
            complete(parse_fields({**EXAMPLE, **fields}))


@pytest.mark.parametrize("page", [page for page, test in PYTHON.items() if not test])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    space: dict[str, Any] = {"__name__": "page"}
    for block in blocks(ROOT / page, "python"):
        if block.startswith(">>>"):
            found = doctest.DocTestParser().get_doctest(block, {}, page, page, 0)
            assert doctest.DocTestRunner().run(found).failed == 0
        else:
            exec(compile(block, page, "exec"), space)
