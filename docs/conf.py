"""The site of the documentation: `make docs`. Pages are Markdown; the Python reference comes from the docstrings."""

import importlib
import inspect
import pkgutil
import re
import shutil
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import olfl_ray

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "olfl_ray"
author = "the olfl_ray authors"
release = olfl_ray.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["build", "complete.yaml"]
html_theme = "furo"
html_title = f"olfl_ray {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a test builds the site with `off`, and runs the notebooks by itself
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a documented attribute may be a member, too
suppress_warnings = ["ref.python"]  # a type hint such as TrialState, of which two packages have one


FIRST = ("study", "engine", "losses", "spec")
"""Packages that document a name which others export too."""
PAGES = {"../CHANGELOG.md": "changelog.md", "../CONTRIBUTING.md": "contributing.md"}
"""Files outside of docs/ that are pages of the site."""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def packages() -> list[str]:
    """The packages, each with public names in `__all__`; `olfl_ray` itself, whose names are those of packages, is the last."""
    found = sorted(one.name for one in pkgutil.iter_modules(olfl_ray.__path__) if one.ispkg)
    return [*(f"olfl_ray.{name}" for name in dict.fromkeys((*FIRST, *found))), "olfl_ray"]


def write_reference(app: Sphinx) -> None:
    """A page for each package, before Sphinx looks for pages. A class or function is documented once; elsewhere is a link."""
    folder = Path(app.srcdir) / "python-reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    documented: dict[object, str] = {}
    for package in packages():
        module = importlib.import_module(package)
        named = {name: getattr(module, name) for name in module.__all__}
        code = {name: value for name, value in named.items() if inspect.isclass(value) or inspect.isroutine(value)}
        links = {name: documented[value] for name, value in code.items() if value in documented}
        own = [name for name in code if name not in links]
        documented |= {code[name]: f"{package}.{name}" for name in own}
        lines = [f"# {package}", "", "```{eval-rst}", f".. automodule:: {package}"]
        lines += [f"   :members: {', '.join(own)}", ""] if own else [""]
        meanings = meanings_in(module)
        for name, value in named.items():
            if name not in code:
                meaning = meanings.get(name) or [f"A {type(value).__name__}."]
                lines += [f".. py:data:: {name}", "", *(f"   {line}" for line in in_rst(meaning)), ""]
        lines += ["```", "", *(f"- `{package}.{name}` is {{py:obj}}`{target}`" for name, target in links.items())]
        (folder / f"{package}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def meanings_in(module: ModuleType) -> dict[str, list[str]]:
    """The text after each constant of a package's modules, by the constant's name."""
    found: dict[str, list[str]] = {}
    for one in pkgutil.iter_modules(module.__path__):
        if not one.ispkg and one.name != "__main__":
            documents = ModuleAnalyzer.for_module(f"{module.__name__}.{one.name}").find_attr_docs()
            found |= {name: lines for (owner, name), lines in documents.items() if not owner}
    return found


def as_rst(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """What autodoc calls with each docstring."""
    lines[:] = in_rst(lines)


def in_rst(lines: list[str]) -> list[str]:
    """Docstrings are plain text with `code`; here it becomes reStructuredText."""
    converted = []
    for line in lines:
        parts = re.split(r"(``?[^`]+``?)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
        converted.append("".join(parts))
    return converted


def link_to_repository(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a file of the repository becomes a page, or a download; to a folder, its name. Any other stays, and is an error."""

    def one(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = (Path(app.srcdir) / page).parent / target
        if target in PAGES:
            return f"[{text}]({PAGES[target]}{anchor or ''})"
        if path.is_dir():
            return f"{text} (`{path.resolve().relative_to(ROOT)}`)"
        return f"{{download}}`{text.replace('`', '')} <{target}>`" if path.is_file() else found[0]

    source[0] = LINK.sub(one, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon
