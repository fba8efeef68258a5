"""The style of all figures: one ink, one grid, one color and dash per competitor."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "as_svg", "colormap", "drawn_by", "grid", "ink", "legend", "style"]

INK, GRID = "#1b1c1f", "#c9ccd1"
"""Colors of text and of grid lines; the report replaces them with those of the reader's theme."""

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")  # Okabe and Ito.
_DASHES = ("-", "--", "-.", ":")

_figure_maker: ContextVar[Callable[..., Any] | None] = ContextVar("figure_maker", default=None)


@contextmanager
def drawn_by(make: Callable[..., Any]) -> Iterator[None]:
    """Pictures are drawn in figures that `make` gives (pyplot's, say, which a notebook shows) in place of plain ones."""
    token = _figure_maker.set(make)
    try:
        yield
    finally:
        _figure_maker.reset(token)


def grid(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of the given size in inches, and its panels by row and column."""
    from matplotlib.figure import Figure

    figure = (_figure_maker.get() or Figure)(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in panels.flat:
        ink(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color=GRID, linewidth=0.6, alpha=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def style(place: int) -> tuple[str, str]:
    """Color and dash of the competitor at an index of the list."""
    return _COLORS[place % len(_COLORS)], _DASHES[place // len(_COLORS) % len(_DASHES)]


def colormap() -> Any:
    """Viridis without its ends, which vanish on dark and white pages."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    viridis = matplotlib.colormaps["viridis"]
    return ListedColormap([viridis(0.2 + 0.68 * k / 255) for k in range(256)])


def ink(axes: Any) -> None:
    """Draw a panel's text and frame in the one ink."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.title.set(color=INK, fontsize=10)
    axes._left_title.set(color=INK, fontsize=10)
    for spine in axes.spines.values():
        spine.set_edgecolor(INK)


def legend(axes: Any, *, outside: bool = False) -> None:
    """Add a legend where it covers least, or to the right of the panel."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if outside else {"loc": "best"}
    axes.legend(frameon=False, labelcolor=INK, fontsize=8, **place)


def as_svg(figure: Figure, background: str = "white") -> str:
    """A figure as SVG text, identical at every run."""
    import matplotlib

    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "olfl"}):
        figure.savefig(text, format="svg", facecolor=background, metadata=nothing)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
