"""The film of a learned loss over training, and its small multiples: loss, slope, and pull on the raw output."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from olfl_ray.analysis.canvas import INK, grid, ink, legend, style
from olfl_ray.explain.families import FAMILIES
from olfl_ray.explain.surfaces import Surface, pull_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from olfl_ray.explain.explanation import Explanation

__all__ = ["film", "multiples"]

HOLD, LAST = 900, 2500
"""Milliseconds that a frame and the last frame are shown."""
DPI = 90
ROWS = 3


def multiples(explanation: Explanation) -> Figure:
    """One column per moment; the rows are the loss, its slope, and its pull, each with the same limits throughout."""
    count = len(explanation.moments)
    figure, panels = grid(ROWS, count, width=2.6 * count + 0.8, height=6.6, sharex="row", sharey="row")
    for column, moment in enumerate(explanation.moments):
        _draw(explanation, column, panels[:, column], _limits(explanation))
        panels[0, column].set_title(f"step {moment.step}")
    for row, label in enumerate(_labels(explanation)):
        panels[row, 0].set_ylabel(label)
    for axes in panels[:, -1]:
        if axes.get_legend_handles_labels()[0]:
            legend(axes)
    return figure


def film(explanation: Explanation) -> bytes:
    """An animated GIF with a frame for each moment."""
    from PIL import Image

    frames = []
    for index, moment in enumerate(explanation.moments):
        figure, ((*panels,),) = grid(1, ROWS, width=9.6, height=3.2)
        _draw(explanation, index, panels, _limits(explanation))
        for axes, label in zip(panels, _labels(explanation), strict=True):
            axes.set_title(label, loc="left")
            if axes.get_legend_handles_labels()[0]:
                legend(axes)
        figure.suptitle(f"step {moment.step}", color=INK, fontsize=11)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        frames.append(Image.open(data).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    data = io.BytesIO()
    shown = [HOLD] * (len(frames) - 1) + [LAST]
    frames[0].save(data, format="GIF", save_all=True, append_images=frames[1:], duration=shown, loop=0)
    return data.getvalue()


def _labels(explanation: Explanation) -> tuple[str, str, str]:
    if explanation.reference.classes:
        return "loss, minimum at 0", "slope in p", "pull on the target's logit"
    return "loss, minimum at 0", "slope in f", "pull -dl/df, by target and output"


def _draw(explanation: Explanation, index: int, panels: Any, limits: list[tuple[float, float]]) -> None:
    """The three panels of one moment."""
    moment = explanation.moments[index]
    levels = np.unique(moment.target_P)
    for place, level in enumerate(levels):
        own = moment.target_P == level
        color, _ = style(place)
        line, value = moment.output_P[own], moment.value_P[own]
        panels[0].plot(line, value - value.min(), color=color, label=f"target {level:.3g}")
        panels[1].plot(line, moment.slope_P[own], color=color)
    panels[1].axhline(0, color=INK, linewidth=0.6)
    for axes, (low, high) in zip(panels[:2], limits[:2], strict=True):
        axes.set_ylim(low, high)
        axes.set_xlabel("p" if explanation.reference.classes else "f")
    if explanation.reference.classes:
        _pull_line(explanation, index, panels[2])
        panels[2].set(ylim=limits[2], xlabel="probability of the target")
    else:
        _pull_plane(explanation, moment, panels[2], limits[2])


def _pull_line(explanation: Explanation, index: int, axes: Any) -> None:
    """The pull on the target's logit, and that of the cross-entropy and of the nearest family member, each times its factor."""
    moment, (_, _, members) = explanation.moments[index], explanation.history[index]
    pull = moment.pull_TQ[0]
    axes.plot(moment.line_Q, pull, color=style(1)[0], label="learned")
    axes.fill_between(moment.line_Q, pull, 0, where=pull < 0, color=style(3)[0], alpha=0.4, linewidth=0)
    families = {family.name: family for family in FAMILIES[explanation.reference.kind]}
    nearest = explanation.nearest
    wanted = ["cross-entropy", *([nearest.family] if nearest is not None else [])]
    for dash, name in zip(("--", ":"), dict.fromkeys(wanted), strict=False):
        for member in members:
            if member.family == name and member.factor > 0:

                def slope(y: Any, f: Any, one: Any = member) -> Any:
                    return families[one.family].slope(y, f, one.value, explanation.reference.outputs)

                own = member.factor * pull_of(slope, explanation.reference, moment.line_Q)[0]
                axes.plot(moment.line_Q, own, dash, color=INK, linewidth=1, label=name)
    axes.axhline(0, color=INK, linewidth=0.6)


def _pull_plane(explanation: Explanation, moment: Surface, axes: Any, limits: tuple[float, float]) -> None:
    """The pull over outputs and targets: blue down, red up; the line is where they are equal."""
    first, last = explanation.reference.seen["target"]
    low, high = moment.line_Q[0], moment.line_Q[-1]
    reach = max(abs(limits[0]), abs(limits[1]))
    axes.imshow(
        moment.pull_TQ,
        origin="lower",
        aspect="auto",
        extent=(low, high, first, last),
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
    )
    ends = (max(low, first), min(high, last))
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.grid(visible=False)
    axes.set(xlabel="f", ylabel="y")
    ink(axes)


def _limits(explanation: Explanation) -> list[tuple[float, float]]:
    """Of each panel, from all moments; a few extreme values may leave them."""
    heights = []
    for moment in explanation.moments:
        for level in np.unique(moment.target_P):
            value = moment.value_P[moment.target_P == level]
            heights.append(value - value.min())
    slopes = np.concatenate([moment.slope_P for moment in explanation.moments])
    pulls = np.concatenate([moment.pull_TQ.ravel() for moment in explanation.moments])
    return [_around(np.concatenate(heights)), _around(slopes), _around(pulls)]


def _around(values: Any) -> tuple[float, float]:
    low, high = (float(end) for end in np.nanpercentile(values, (1, 99)))
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin
