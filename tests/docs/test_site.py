"""The site of the documentation builds without warnings, has every public name, and its generated pages are those of the code."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.util.inventory import InventoryFile

import olfl_ray

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the notebooks are run by their own test."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "nb_execution_mode=off", DOCS, out],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


def test_every_public_name_is_in_the_site(site: Path) -> None:
    with (site / "objects.inv").open("rb") as stream:
        inventory = InventoryFile.load(stream, "", lambda base, uri: uri)
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    packages = ["olfl_ray", *(f"olfl_ray.{one.name}" for one in pkgutil.iter_modules(olfl_ray.__path__) if one.ispkg)]
    for package in packages:
        page = (site / "python-reference" / f"{package}.html").read_text()
        linked = dict(re.findall(rf">({package}\.\w+)</span></code> is <a [^>]*title=\"([^\"]+)\"", page))
        for name in importlib.import_module(package).__all__:
            full = f"{package}.{name}"
            assert full in documented or linked.get(full) in documented, full


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text()
    pages = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if "build" not in path.parts]
    assert len(pages) > 40
    for page in pages:
        assert f'href="{page.with_suffix(".html").as_posix()}"' in first or page.stem == "index", page


def _generate() -> ModuleType:
    found = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "command-line.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text() == _generate().PAGES[page](), "run: python docs/generate.py"


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Page\n\n[gone](gone.md)\n")
    config = (DOCS / "conf.py").read_text()
    assert "def packages() -> list[str]:\n" in config
    short = config.replace(
        "def packages() -> list[str]:\n", "def packages() -> list[str]:\n    return []\n\n\ndef _all():\n"
    )
    (tmp_path / "conf.py").write_text(short)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", tmp_path, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "gone.md" in done.stderr
