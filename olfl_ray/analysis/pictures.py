"""Figures of a study's results: one color per arm, the same in every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis.canvas import GRID, INK, colormap, grid, ink, legend, style
from olfl_ray.analysis.series import curves, loss_lines, scaled, with_axis, with_value
from olfl_ray.analysis.tables import records_table
from olfl_ray.ledger import StudyState
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "importance_bars",
    "learned_loss",
    "learning_curves",
    "parallel_coordinates",
    "search_history",
]


def learning_curves(spec: StudySpec, state: StudyState, storage: Storage) -> Figure | None:
    """The search metric over steps: mean ± sd over each winner's fresh seeds, or else over its replicates."""
    lines = curves(spec, state, partial(records_table, storage), spec.search.metric)
    if not lines:
        return None
    figure, ((axes,),) = grid(1, 1, width=7, height=4)
    for arm, curve in lines.items():
        color, dash = style(list(spec.arms).index(arm))
        mark = "o" if len(curve.steps) == 1 else None
        axes.plot(curve.steps, curve.means, dash, color=color, label=f"{arm} (n={curve.n})", marker=mark)
        spreads = list(zip(curve.means, curve.sds, strict=True))
        low, high = ([mean + sign * sd for mean, sd in spreads] for sign in (-1, 1))
        axes.fill_between(curve.steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set(xlabel="base step", ylabel=spec.search.metric)
    legend(axes)
    return figure


def learned_loss(spec: StudySpec, state: StudyState, storage: Storage, arm: str) -> Figure | None:
    """An arm's learned loss over the output, one panel per target and one line per step, next to the task loss."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    lines = loss_lines(spec, state, storage, arm)
    if lines is None:
        return None
    colors, norm = colormap(), Normalize(0, max(lines.steps[-1], 1))
    width = 3.4 * len(lines.targets) + 0.9
    figure, ((*panels,),) = grid(1, len(lines.targets), width=width, height=3.4, sharey=True)
    for axes, target in zip(panels, lines.targets, strict=True):
        for step in lines.steps:
            axes.plot(*lines.learned[step, target], color=colors(norm(step)))
        axes.plot(*lines.task[target], "--", color=INK, label=f"task loss × {lines.scale:.3g}")
        axes.set(title=f"target {target:g}", xlabel="output")
    panels[0].set_ylabel("loss, minimum at 0")
    legend(panels[-1])
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="base step", ticks=lines.steps)
    ink(bar.ax)
    return figure


def importance_bars(spec: StudySpec, importances: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Share of each searched field in the variance of the search metric, one panel per arm."""
    arms = [arm for arm in spec.arms if importances.get(arm)]
    if not arms:
        return None
    counts = [len(importances[arm]) for arm in arms]
    height = sum(counts) * 0.36 + 0.75 * len(arms) + 0.4
    figure, rows = grid(len(arms), 1, width=7, height=height, sharex=True, height_ratios=[n + 0.6 for n in counts])
    for (axes,), arm in zip(rows, arms, strict=True):
        ranked = sorted(importances[arm].items(), key=lambda item: item[1])
        axes.barh(
            [_plain(name) for name, _ in ranked],
            [value for _, value in ranked],
            color=style(list(spec.arms).index(arm))[0],
        )
        axes.set_title(arm, loc="left")
        axes.grid(visible=False, axis="y")
    rows[-1][0].set(xlabel="importance (share of variance)", xlim=(0, None))
    return figure


def search_history(spec: StudySpec, state: StudyState) -> Figure | None:
    """Search metric of each trial in the order of proposal, and the best value so far of each arm."""
    better = min if spec.search.goal == "minimize" else max
    searched = {arm: [trial for trial in state.search_trials(arm) if trial.ended] for arm in spec.arms}
    if not any(searched.values()):
        return None
    figure, ((axes,),) = grid(1, 1, width=7, height=4)
    marks = {"finished": "o", "pruned": "v", "diverged": "x", "failed": "s"}
    shown = set()
    for arm, trials in searched.items():
        color, dash = style(list(spec.arms).index(arm))
        best: list[tuple[int, float]] = []
        for trial in trials:
            value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
            shown.add(trial.state)
            hollow = {} if trial.state == "diverged" else {"facecolors": color if trial.state == "finished" else "none"}
            colors = {"color": color} if trial.state == "diverged" else {"edgecolors": color, **hollow}
            if value is None or trial.state in ("diverged", "failed"):  # No value to compare: marked at the top edge.
                place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
                axes.scatter([trial.id.ordinal], [1.0], marker=marks[trial.state], s=30, zorder=3, **colors, **place)
                continue
            axes.scatter([trial.id.ordinal], [value], marker=marks[trial.state], s=30, zorder=3, **colors)
            if trial.state == "finished":
                best.append((trial.id.ordinal, better(value, best[-1][1]) if best else value))
        axes.step(*_columns(best), dash, where="post", color=color, label=f"{arm}, best so far", alpha=0.8)
    for name in (name for name in marks if name in shown):
        face = INK if name == "finished" else "none"
        axes.plot([], [], marks[name], color=INK, markerfacecolor=face, markersize=5, label=name)
    axes.set(xlabel="search trial", ylabel=spec.search.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes, outside=True)
    return figure


def parallel_coordinates(spec: StudySpec, state: StudyState, arm: str) -> Figure | None:
    """An arm's search: one line per trial through its values of the searched fields, colored by the search metric.

    Formulas have no axis.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    parameters = with_axis(spec, arm)
    trials = with_value(state, arm)
    if len(trials) < 2 or not parameters:
        return None
    values = [trial.value for trial in trials if trial.value is not None]
    low, high = min(values), max(values)
    columns = [
        scaled(parameter, [trial.params.get(name) for trial in trials]) for name, parameter in parameters.items()
    ]
    columns.append(
        ([(value - low) / (high - low or 1) for value in values], [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")])
    )
    figure, ((axes,),) = grid(1, 1, width=max(5.5, 1.9 * len(columns) + 1), height=3.8)
    colors, norm = colormap(), Normalize(low, high if high > low else low + 1)
    order = sorted(range(len(trials)), key=lambda k: values[k], reverse=spec.search.goal == "minimize")  # Best on top.
    for k in order:
        line = [places[k] for places, _ in columns]
        axes.plot(range(len(columns)), line, color=colors(norm(values[k])), marker="o", markersize=3.5, linewidth=1.4)
    for position, (_, ticks) in enumerate(columns):
        axes.axvline(position, color=GRID, linewidth=1, zorder=0)
        for height, text in ticks:
            axes.annotate(
                _plain(text),
                (position, height),
                (5, 6),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
                va="center",
            )
    labels = [".\n".join(_plain(name).rsplit(".", 1)) for name in parameters]
    axes.set_xticks(range(len(columns)), [*labels, spec.search.metric], fontsize=8)
    axes.set(ylim=(-0.06, 1.06), yticks=[], xlim=(-0.15, len(columns) - 0.55))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=axes, label=spec.search.metric)
    ink(bar.ax)
    axes.set_title(arm, loc="left", color=style(list(spec.arms).index(arm))[0])
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
