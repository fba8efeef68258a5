"""The style of all figures: one ink, one grid, one color and dash per competitor."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DASHES", "GRID", "INK", "as_svg", "colormap", "drawn_by", "grid", "ink", "legend", "ramp", "style"]

INK, GRID = "#1b1c1f", "#c9ccd1"
"""Colors of text and of grid lines."""

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")  # Okabe and Ito.
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
"""Dashes of matplotlib, and their names in plotly."""
_RAMP = ("#3f4788", "#2e6e8e", "#21918c", "#35b779", "#90d743")  # Viridis without its ends, which vanish on some pages.

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
    return _COLORS[place % len(_COLORS)], list(DASHES)[place // len(_COLORS) % len(DASHES)]


def ramp(count: int) -> list[str]:
    """Colors for `count` ordered values, dark to light."""
    anchors = [tuple(int(color[k : k + 2], 16) for k in (1, 3, 5)) for color in _RAMP]
    found = []
    for k in range(count):
        at = k / max(count - 1, 1) * (len(anchors) - 1)
        low = min(int(at), len(anchors) - 2)
        pairs = zip(anchors[low], anchors[low + 1], strict=True)
        found.append("#" + "".join(f"{round(a + (at - low) * (b - a)):02x}" for a, b in pairs))
    return found


def colormap() -> Any:
    """The same colors for matplotlib."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(ramp(256))


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
