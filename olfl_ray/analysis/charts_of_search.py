"""The report's figures of the search: its history, the importance of each field, parallel coordinates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from olfl_ray.analysis.canvas import ramp
from olfl_ray.analysis.chart import NEUTRAL, Chart, Figure, as_figure, axis, color_of, dash_of, rounded, safe, trace
from olfl_ray.analysis.series import scaled, with_axis, with_value
from olfl_ray.analysis.wording import number, short
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import StudySpec

__all__ = ["search_charts"]

MOST_LINES = 300
"""Trials in a figure of parallel coordinates, the best ones; `tables/trials.csv` has all."""
SYMBOLS = {"finished": "circle", "pruned": "triangle-down-open", "diverged": "x-thin-open", "failed": "square-open"}
DODGE = 0.5
"""Width of the marks of all arms at one trial, in trials."""
FAR = 3.0
"""The search history starts with the better half of the trials if all of them need an axis this many times longer."""


def search_charts(
    spec: StudySpec, state: StudyState, importances: Mapping[str, Mapping[str, float]]
) -> Iterator[Chart]:
    """What the search found: its history, the importance of each field, and parallel coordinates for each arm."""
    if (chart := _history(spec, state)) is not None:
        yield chart
    if any(importances.get(arm) for arm in spec.arms):
        yield _importance(spec, importances)
    for index, arm in enumerate(spec.arms):
        if (chart := _parallel(spec, state, arm, index)) is not None:
            yield chart


def _history(spec: StudySpec, state: StudyState) -> Chart | None:
    goal, metric = spec.search.goal, spec.search.metric
    searched = {arm: [trial for trial in state.search_trials(arm) if trial.ended] for arm in spec.arms}
    if not any(searched.values()):
        return None
    ended = [trial for trials in searched.values() for trial in trials]
    values = [trial.value for trial in ended if trial.value is not None and _compared(trial)]
    half = _near(values, goal)
    near = None if half is None else _padded(*half)
    sign = 1 if goal == "minimize" else -1
    data: list[Figure] = []
    edges: list[int] = []
    for place, (arm, trials) in enumerate(searched.items()):
        color = color_of(spec, arm)
        group = {"legendgroup": safe(arm)}
        shift = DODGE * ((place + 0.5) / len(searched) - 0.5)
        best: list[tuple[int, float]] = []
        for trial in trials:
            if trial.state == "finished" and trial.value is not None:
                value = trial.value if not best else min(best[-1][1], trial.value, key=lambda one: sign * one)
                best.append((trial.id.ordinal, value))
        if best:
            best.append((trials[-1].id.ordinal, best[-1][1]))
        line = {"color": color, "shape": "hv", "width": 1.6, "dash": dash_of(spec, arm)}
        x, y = [at for at, _ in best], rounded([value for _, value in best])
        name = f"{safe(arm)}, best so far"
        data.append(trace(x=x, y=y, line=line, name=name, showlegend=True, hoverinfo="skip", **group))
        inside = [trial for trial in trials if _compared(trial)]
        data.append(_marks(spec, inside, shift, y=rounded([trial.value for trial in inside]), **group))
        far = [] if near is None else [trial for trial in inside if not near[0] <= (trial.value or 0.0) <= near[1]]
        if far:
            edges.append(len(data))
            data.append(_marks(spec, far, shift, y=[0.985 if sign > 0 else 0.015] * len(far), yaxis="y2", **group))
        lost = [trial for trial in trials if not _compared(trial)]
        data.append(_marks(spec, lost, shift, y=[1.0 if sign > 0 else 0.0] * len(lost), yaxis="y2", **group))
    for name in (name for name in SYMBOLS if any(trial.state == name for trial in ended)):
        marker = {"symbol": SYMBOLS[name], "color": NEUTRAL, "size": 9, "line": {"width": 1.6, "color": NEUTRAL}}
        data.append(trace(x=[None], y=[None], mode="markers", marker=marker, name=name, showlegend=True))
    layout: Figure = {
        "xaxis": axis("search trial", **({"dtick": 1} if len(ended) <= 12 * len(searched) else {})),
        "yaxis": axis(metric),
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    zoom = ""
    if near is not None:
        everything = _padded(min(values), max(values))
        layout["yaxis"]["range"] = list(near)
        layout["updatemenus"] = [_switch({"better half": (1, list(near)), "all trials": (0, everything)}, edges)]
        zoom = " The axis starts with the better half of the trials; the worse ones are marked at its edge. The buttons switch."
    return Chart(
        name="search-history",
        title="Search history",
        figure=as_figure(data, height=460, **layout),
        caption=f"{metric} of each search trial in the order of proposal. Trials without a value are at the edge.{zoom}",
    )


def _compared(trial: TrialState) -> bool:
    """Whether a trial has a value that may be compared."""
    return trial.state in ("finished", "pruned") and trial.value is not None and math.isfinite(trial.value)


def _near(values: Sequence[float], goal: str) -> tuple[float, float] | None:
    """The range of the better half of the values, if the axis would otherwise hide their differences; else None."""
    if len(values) < 4:
        return None
    middle = statistics.median(values)
    low, high = (min(values), middle) if goal == "minimize" else (middle, max(values))
    if max(values) - min(values) <= FAR * (high - low) or low == high:
        return None
    return low, high


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - pad, high + pad


def _switch(choices: Mapping[str, tuple[int, Sequence[float]]], edges: list[int]) -> Figure:
    """Buttons that set the range of the y axis and show or hide the marks at its edge."""
    buttons = [
        {"label": label, "method": "update", "args": [{"opacity": opacity}, {"yaxis.range": list(ends)}, edges]}
        for label, (opacity, ends) in choices.items()
    ]
    return {"type": "buttons", "direction": "right", "x": 0.5, "xanchor": "center", "y": 1.02, "yanchor": "bottom"} | {
        "buttons": buttons,
        "showactive": False,
    }


def _marks(spec: StudySpec, trials: Sequence[TrialState], shift: float, **more: Any) -> Figure:
    """Trials of one arm; those of other arms have another shift, so that none hides another."""
    color = color_of(spec, trials[0].id.arm) if trials else NEUTRAL
    symbols = [SYMBOLS[trial.state] for trial in trials]
    marker = {"symbol": symbols, "color": color, "size": 9, "line": {"width": 1.6, "color": color}}
    return trace(
        x=[round(trial.id.ordinal + shift, 3) for trial in trials],
        mode="markers",
        marker=marker,
        text=[_described(spec, trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        cliponaxis=False,
        **more,
    )


def _described(spec: StudySpec, trial: TrialState) -> str:
    value = "" if trial.value is None else f", {safe(spec.search.metric)} {number(trial.value)}"
    lines = [f"<b>{safe(str(trial.id))}</b> {trial.state} at step {trial.step}{value}"]
    lines += [f"{safe(name)} = {safe(short(setting))}" for name, setting in trial.params.items()]
    if trial.cause:
        lines.append(safe(trial.cause.splitlines()[0][:120]))
    return "<br>".join(lines)


def _importance(spec: StudySpec, importances: Mapping[str, Mapping[str, float]]) -> Chart:
    arms = [arm for arm in spec.arms if importances.get(arm)]
    totals: dict[str, float] = {}
    for arm in arms:
        for name, value in importances[arm].items():
            totals[name] = max(totals.get(name, 0.0), value)
    fields = sorted(totals, key=lambda name: totals[name])
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": safe(arm),
            "x": rounded([importances[arm].get(name) for name in fields]),
            "y": [safe(name) for name in fields],
            "marker": {"color": color_of(spec, arm)},
            "hovertemplate": "%{y}: %{x:.3f}",
        }
        for arm in reversed(arms)  # the first arm is drawn on top
    ]
    return Chart(
        name="importances",
        title="Importance of each searched field",
        figure=as_figure(
            data,
            height=140 + 22 * sum(len(importances[arm]) for arm in arms),
            xaxis=axis("importance (share of variance)", rangemode="tozero"),
            yaxis={"automargin": True},
            barmode="group",
            showlegend=True,
            legend={"traceorder": "reversed"},
        ),
        caption=f"Share of each field in the variance of {spec.search.metric} over the search.",
    )


def _parallel(spec: StudySpec, state: StudyState, arm: str, index: int) -> Chart | None:
    parameters = with_axis(spec, arm)
    sign = 1 if spec.search.goal == "minimize" else -1
    trials = sorted(with_value(state, arm), key=lambda trial: sign * (trial.value or 0.0))[:MOST_LINES]
    if len(trials) < 2 or not parameters:
        return None
    values = [trial.value for trial in trials if trial.value is not None]
    half = _near(values, spec.search.goal)
    low, high = half or (min(values), max(values))
    places = [min(max((value - low) / (high - low or 1), 0.0), 1.0) for value in values]
    worse = "" if half is None else " and worse"
    ends = [number(low) + worse * (sign < 0), number(high) + worse * (sign > 0)]
    columns = [
        scaled(parameter, [trial.params.get(name) for trial in trials]) for name, parameter in parameters.items()
    ]
    columns.append((places, list(zip((0.0, 1.0), ends, strict=True))))
    colors = ramp(256)
    data = []
    for k in reversed(range(len(trials))):  # the best on top
        color = colors[round(255 * places[k])]
        heights = [None if math.isnan(column[k]) else column[k] for column, _ in columns]
        data.append(
            trace(
                x=list(range(len(columns))),
                y=rounded(heights),
                mode="lines+markers",
                line={"color": color, "width": 1.6},
                marker={"size": 5, "color": color},
                text=_described(spec, trials[k]),
                hovertemplate="%{text}<extra></extra>",
            )
        )
    scale = {"cmin": low, "cmax": high if high > low else low + 1, "showscale": True, "color": [low]}
    scale |= {"colorscale": [[k / 15, color] for k, color in enumerate(ramp(16))]}
    scale |= {
        "colorbar": {"title": {"text": safe(spec.search.metric), "side": "right"}, "outlinewidth": 0, "thickness": 14}
    }
    data.append(trace(x=[None], y=[None], mode="markers", marker=scale))
    texts = [
        {"x": at, "y": height, "text": safe(text), "xanchor": "left", "xshift": 6, "showarrow": False}
        | {"font": {"size": 11}}
        for at, (_, ticks) in enumerate(columns)
        for height, text in ticks
    ]
    poles = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "layer": "below", "line": {"color": NEUTRAL, "width": 1}}
        for at in range(len(columns))
    ]
    labels = [".<br>".join(safe(name).rsplit(".", 1)) for name in [*parameters, spec.search.metric]]
    sides = [-0.1, len(columns) - 1 + 0.35]
    return Chart(
        name=f"parallel-{index}",
        title="Search",
        arm=arm,
        figure=as_figure(
            data,
            height=420,
            xaxis={"tickvals": list(range(len(columns))), "ticktext": labels, "range": sides, "showgrid": False},
            yaxis={"visible": False, "range": [-0.06, 1.06]},
            annotations=texts,
            shapes=poles,
            showlegend=False,
            hovermode="closest",
        ),
        caption=f"One line per trial, coloured by {spec.search.metric}"
        + (f" (the best {MOST_LINES})." if len(with_value(state, arm)) > MOST_LINES else ".")
        + ("" if half is None else " Axis and colours show the better half; worse trials are at the end."),
    )
