"""The report's figures of training: the search metric, the gradients and the learned losses of each arm's winner; its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from olfl_ray.analysis.canvas import ramp
from olfl_ray.analysis.chart import NEUTRAL, Chart, Figure, as_figure, axis, color_of, dash_of, rounded, safe, trace
from olfl_ray.analysis.series import Curve, Read, curves, loss_lines, recorded
from olfl_ray.analysis.tables import ArmResult
from olfl_ray.analysis.wording import number
from olfl_ray.ledger import StudyState
from olfl_ray.records import names
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

__all__ = ["seeds_chart", "training_charts"]

WIDE = 90
"""Letters below a figure for which labels are turned."""
MOST_POINTS = 500
"""Points per curve; `tables/curves.parquet` has all."""
MOST_OTHERS = 8
"""Figures of what methods record themselves; `tables/curves.parquet` has all."""


def training_charts(spec: StudySpec, state: StudyState, read: Read, storage: Storage) -> Iterator[Chart]:
    """What happens while each arm's winner trains: the search metric, the gradients, the learned losses."""
    metric = spec.search.metric
    if found := curves(spec, state, read, metric):
        data = [trace for arm, curve in found.items() for trace in _band(spec, arm, curve)]
        yield Chart(
            name="learning-curves",
            title="Learning curves",
            figure=as_figure(data, xaxis=axis("base step"), yaxis=axis(metric)),
            caption=f"{metric} while each arm's winner trains: mean and one standard deviation over its confirming seeds "
            "(over its search replicates where there are none).",
        )
    if (chart := _gradients(spec, state, read)) is not None:
        yield chart
    yield from _others(spec, state, read)
    for index, arm in enumerate(spec.arms):
        if (chart := _learned_loss(spec, state, storage, arm, index)) is not None:
            yield chart


def seeds_chart(spec: StudySpec, results: Sequence[ArmResult]) -> Chart | None:
    """The test metric of each confirming seed, one column per arm."""
    shown = [result for result in results if result.n]
    if not shown:
        return None
    metric = shown[0].test.metric
    columns = [safe(result.arm) for result in shown]
    seeds = list(dict.fromkeys(seed for result in shown for seed in result.test.values))
    data: list[Figure] = []
    if len(shown) > 1:
        x, y = [], []
        for seed in seeds:
            own = [result.test.values.get(seed) for result in shown]
            x += [*range(len(shown)), None]
            y += [*own, None]
        data.append(trace(x=x, y=rounded(y), line={"color": NEUTRAL, "width": 1}, opacity=0.35, hoverinfo="skip"))
    for place, result in enumerate(shown):
        color = color_of(spec, result.arm)
        values = list(result.test.values.values())
        data.append(
            trace(
                x=[place] * len(values),
                y=rounded(values),
                mode="markers",
                marker={"color": color, "size": 9, "opacity": 0.75},
                text=[f"seed {seed}" for seed in result.test.values],
                hovertemplate="%{text}: %{y}<extra></extra>",
            )
        )
        spread = {"array": [result.test.sd], "color": color, "thickness": 2, "width": 8} if result.test.sd else {}
        data.append(
            trace(
                x=[place + 0.18],
                y=rounded([result.test.mean]),
                mode="markers",
                marker={"color": color, "size": 13, "symbol": "line-ew", "line": {"color": color, "width": 3}},
                error_y=spread,
                text=[f"mean {number(result.test.mean)}"],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    ticks: Figure = {"tickvals": list(range(len(shown))), "ticktext": columns, "range": [-0.5, len(shown) - 0.5]}
    if len(shown) * max(map(len, columns)) > WIDE:
        ticks["tickangle"] = -30
    return Chart(
        name="seeds",
        title=f"Test {metric} of each seed",
        figure=as_figure(data, xaxis=ticks, yaxis=axis(f"test {metric}"), showlegend=False),
        caption="Lines connect the same seed in each arm. The bars are mean and one standard deviation.",
    )


def _gradients(spec: StudySpec, state: StudyState, read: Read) -> Chart | None:
    own, task, cosine = (
        curves(spec, state, read, name)
        for name in (names.TRAIN_GRAD_NORM, names.TRAIN_TASK_GRAD_NORM, names.TRAIN_GRAD_COSINE)
    )
    if not own:
        return None
    data: list[Figure] = []
    for arm, curve in own.items():
        data.append(_curve(spec, arm, curve, name=safe(arm), showlegend=True, text="gradient"))
        if arm in task:
            faint = {"color": color_of(spec, arm), "width": 1.2, "dash": "dot"}
            data.append(_curve(spec, arm, task[arm], line=faint, text="task loss's gradient"))
        if arm in cosine:
            data.append(_curve(spec, arm, cosine[arm], text="cosine", xaxis="x2", yaxis="y2"))
    left, right = [0.0, 0.45], [0.55, 1.0]
    return Chart(
        name="gradients",
        title="Gradients",
        figure=as_figure(
            data,
            xaxis=axis("base step", domain=left),
            yaxis=axis("norm of the gradient", type="log", tickformat="~g"),
            xaxis2=axis("base step", domain=right, anchor="y2"),
            yaxis2=axis("cosine to the task loss's gradient", range=[-1.05, 1.05], anchor="x2"),
        ),
        caption="Left: norm of the gradient that theta follows, and (dotted) of the task loss's at the same theta and batch. "
        "Right: cosine of the angle between the two. Means over the same trials as the learning curves.",
    )


def _others(spec: StudySpec, state: StudyState, read: Read) -> Iterator[Chart]:
    """What methods, learnables and optimizers record besides the metrics that every trial has, one figure each."""
    facts = next(iter(state.facts.values()), None)
    if facts is None:
        return
    known = {*names.METRICS, *(names.SELECTION_PREFIX + name for name in facts.goals)}
    for index, metric in enumerate(recorded(spec, state, read, known)[:MOST_OTHERS]):
        data = [part for arm, curve in curves(spec, state, read, metric).items() for part in _band(spec, arm, curve)]
        if data:
            yield Chart(
                name=f"recorded-{index}",
                title=metric,
                figure=as_figure(data, height=300, xaxis=axis("base step"), yaxis=axis(metric)),
                caption=f"{metric} over the same trials as the learning curves.",
            )


def _learned_loss(spec: StudySpec, state: StudyState, storage: Storage, arm: str, index: int) -> Chart | None:
    lines = loss_lines(spec, state, storage, arm)
    if lines is None:
        return None
    data: list[Figure] = []
    layout: Figure = {}
    count = len(lines.targets)
    for column, target in enumerate(lines.targets):
        own = "" if column == 0 else str(column + 1)
        axes = {"xaxis": f"x{own}", "yaxis": f"y{own}"}
        gap = 0.06
        start = column * (1 + gap) / count
        layout |= {
            f"xaxis{own}": axis(f"output (target {target:g})", domain=[start, start + (1 + gap) / count - gap]),
            f"yaxis{own}": {"anchor": f"x{own}", **({} if column == 0 else {"matches": "y", "showticklabels": False})},
        }
        for step, color in zip(lines.steps, ramp(len(lines.steps)), strict=True):
            x, y = lines.learned[step, target]
            name = f"step {step}"
            line = {"color": color, "width": 2}
            group = {"name": name, "legendgroup": name, "showlegend": column == 0}
            data.append(trace(x=rounded(x), y=rounded(y), line=line, hovertemplate=f"{name}: %{{y}}", **group, **axes))
        x, y = lines.task[target]
        name = f"task loss × {lines.scale:.3g}"
        line = {"color": NEUTRAL, "width": 2, "dash": "dash"}
        group = {"name": name, "legendgroup": "task", "showlegend": column == 0}
        data.append(trace(x=rounded(x), y=rounded(y), line=line, hovertemplate=f"{name}: %{{y}}", **group, **axes))
    layout["yaxis"]["title"] = {"text": "loss, minimum at 0"}
    return Chart(
        name=f"learned-loss-{index}",
        title="Learned loss",
        arm=arm,
        figure=as_figure(data, height=380, hovermode="x", **layout),
        caption="The winner's learned loss during training, next to the task loss (dashed); each line is shifted to a "
        "minimum of 0, and the task loss scaled to the same height: neither changes where a gradient points.",
    )


def _band(spec: StudySpec, arm: str, curve: Curve) -> Iterator[Figure]:
    """A curve, and a band of one standard deviation."""
    kept = _thinned(len(curve.steps))
    points = [(curve.steps[k], curve.means[k], curve.sds[k]) for k in kept]
    x = [step for step, _, _ in points]
    low, high = ([mean + sign * sd for _, mean, sd in points] for sign in (-1, 1))
    if any(sd for _, _, sd in points):
        yield trace(
            x=[*x, *reversed(x)],
            y=rounded([*high, *reversed(low)]),
            line={"width": 0},
            fill="toself",
            fillcolor=_faded(color_of(spec, arm)),
            legendgroup=safe(arm),
            hoverinfo="skip",
        )
    yield _curve(spec, arm, curve, name=f"{safe(arm)} (n={curve.n})", showlegend=True, text="")


def _curve(spec: StudySpec, arm: str, curve: Curve, *, text: str, **more: Any) -> Figure:
    kept = _thinned(len(curve.steps))
    hover = "<br>".join(part for part in (safe(arm), text) if part)
    return trace(
        **{
            "x": [curve.steps[k] for k in kept],
            "y": rounded(curve.means[k] for k in kept),
            "mode": "lines" if len(kept) > 1 else "markers",
            "line": {"color": color_of(spec, arm), "width": 2, "dash": dash_of(spec, arm)},
            "marker": {"color": color_of(spec, arm)},
            "legendgroup": safe(arm),
            "text": hover,
            "hovertemplate": "%{text}<br>step %{x}: %{y}<extra></extra>",
            **more,
        }
    )


def _thinned(count: int) -> list[int]:
    """At most MOST_POINTS indices, evenly spaced, the first and the last among them."""
    if count <= MOST_POINTS:
        return list(range(count))
    return [round(k * (count - 1) / (MOST_POINTS - 1)) for k in range(MOST_POINTS)]


def _faded(color: str) -> str:
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
