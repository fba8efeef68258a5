"""A figure of a report's page as plain values of plotly's schema: importing plotly would cost more than drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from olfl_ray.analysis.canvas import DASHES, style
from olfl_ray.spec import StudySpec, printable

__all__ = ["NEUTRAL", "Chart", "Figure", "as_figure", "axis", "color_of", "dash_of", "rounded", "safe", "trace"]

NEUTRAL = "#80868f"
"""Color of what belongs to no arm; readable on light and on dark pages."""

Figure = dict[str, Any]
"""A figure or a part of it in plotly's schema."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure of the page.

    Args:
        name: Its id in the page.
        title: What it shows, in some words.
        arm: The only arm that it shows; empty: several.
        figure: Its traces and layout in plotly's schema.
        caption: One or two sentences; plain text, as the title.
    """

    name: str
    title: str
    arm: str = ""
    figure: Figure
    caption: str


def as_figure(data: Sequence[Figure], *, height: int = 420, **layout: Any) -> Figure:
    """A figure with its height in pixels; the page adds fonts and the colors of text and grid."""
    return {"data": list(data), "layout": {"height": height, **layout}}


def trace(**more: Any) -> Figure:
    """A line without an entry in the legend, changed by `more`."""
    return {"type": "scatter", "mode": "lines", "showlegend": False, **more}


def axis(title: str, **more: Any) -> Figure:
    """An axis with a title of plain text."""
    return {"title": {"text": safe(title)}, **more}


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Six significant digits: the page stays small; plotly draws a gap for None."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values]


def color_of(spec: StudySpec, arm: str) -> str:
    """An arm's color, the same in every figure."""
    return style(list(spec.arms).index(arm))[0]


def dash_of(spec: StudySpec, arm: str) -> str:
    """An arm's dash: arms with the same color have different ones."""
    return DASHES[style(list(spec.arms).index(arm))[1]]


def safe(text: str) -> str:
    """Text of a study in plotly's labels, which would interpret some HTML."""
    return escape(printable(text), quote=False)
