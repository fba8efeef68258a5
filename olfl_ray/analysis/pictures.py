"""Figures of a study's results: one color per arm, the same in every figure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis.canvas import GRID, INK, colormap, grid, ink, legend, style
from olfl_ray.analysis.statistics import sd
from olfl_ray.analysis.tables import confirmed, records_table, surfaces_table
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import Parameter, StudySpec
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
    lines = {}
    for arm in spec.arms:
        best = state.best(arm, spec.search.goal)
        trials = confirmed(spec, state, arm) or ([best] if best is not None else [])
        by_step: dict[int, dict[tuple[str, int], float]] = defaultdict(dict)
        for trial in trials:
            for row in records_table(storage, trial).to_pylist():
                if row["metric"] == spec.search.metric and math.isfinite(row["value"]):
                    by_step[row["step"]][str(trial.id), row["replicate"]] = row["value"]
        if by_step:
            lines[arm] = {step: list(by_step[step].values()) for step in sorted(by_step)}
    if not lines:
        return None
    figure, ((axes,),) = grid(1, 1, width=7, height=4)
    for arm, values in lines.items():
        steps = list(values)
        means = [sum(found) / len(found) for found in values.values()]
        sds = [sd(found) if len(found) > 1 else 0.0 for found in values.values()]
        color, dash = style(list(spec.arms).index(arm))
        count = max(len(found) for found in values.values())
        axes.plot(steps, means, dash, color=color, label=f"{arm} (n={count})", marker="o" if len(steps) == 1 else None)
        low, high = ([mean + sign * sd for mean, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set(xlabel="base step", ylabel=spec.search.metric)
    legend(axes)
    return figure


def learned_loss(spec: StudySpec, state: StudyState, storage: Storage, arm: str) -> Figure | None:
    """An arm's learned loss over the output, one panel per target and one line per step, next to the task loss.

    Each line is shifted so that its minimum is 0: a constant changes no gradient. The task loss is scaled to the final
    height of the learned loss, by one factor for all targets: a factor only rescales the learning rate.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    best = state.best(arm, spec.search.goal)
    trials = [*confirmed(spec, state, arm)[:1], *([best] if best is not None else [])]
    rows: list[dict[str, Any]] = next((found for found in (_surface(storage, trial) for trial in trials) if found), [])
    if not rows:
        return None
    targets = sorted({row["target"] for row in rows})
    steps = sorted({row["step"] for row in rows})
    height, task_height = (
        max((value for target in targets for value in _curve(rows, name, steps[-1], target)[1]), default=0.0)
        for name in ("learned", "task")
    )
    scale = height / task_height if height > 0 and task_height > 0 else 1.0
    colors, norm = colormap(), Normalize(0, max(steps[-1], 1))
    figure, ((*panels,),) = grid(1, len(targets), width=3.4 * len(targets) + 0.9, height=3.4, sharey=True)
    for axes, target in zip(panels, targets, strict=True):
        for step in steps:
            axes.plot(*_curve(rows, "learned", step, target), color=colors(norm(step)))
        outputs, task = _curve(rows, "task", steps[-1], target)
        axes.plot(outputs, [scale * value for value in task], "--", color=INK, label=f"task loss × {scale:.3g}")
        axes.set(title=f"target {target:g}", xlabel="output")
    panels[0].set_ylabel("loss, minimum at 0")
    legend(panels[-1])
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="base step", ticks=steps)
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
    """An arm's search: one line per trial through its values of the searched fields, colored by the search metric."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    parameters = spec.parameters_of(arm)
    trials = [t for t in state.search_trials(arm) if t.ended and t.value is not None and math.isfinite(t.value)]
    if len(trials) < 2 or not parameters:
        return None
    values = [trial.value for trial in trials if trial.value is not None]
    low, high = min(values), max(values)
    columns = [
        _scaled(parameter, [trial.params.get(name) for trial in trials]) for name, parameter in parameters.items()
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


def _surface(storage: Storage, trial: TrialState) -> list[dict[str, Any]]:
    return [row for row in surfaces_table(storage, trial).to_pylist() if row["replicate"] == 0]


def _curve(rows: Sequence[Mapping[str, Any]], column: str, step: int, target: float) -> tuple[list[float], list[float]]:
    """One line of the figure of the learned loss: outputs, and a column's values above their minimum."""
    line = sorted((row["output"], row[column]) for row in rows if (row["step"], row["target"]) == (step, target))
    finite = [(output, value) for output, value in line if math.isfinite(value)]
    least = min((value for _, value in finite), default=0.0)
    return [output for output, _ in finite], [value - least for _, value in finite]


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _scaled(parameter: Parameter, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Position of each value on an axis from 0 to 1 (NaN if the field was not searched), and the ticks of the axis."""
    if parameter.values is not None:
        texts = [str(_listed(value)) for value in parameter.values]
        texts += sorted({str(_listed(value)) for value in values if value is not None} - set(texts))
        place = {text: k / max(len(texts) - 1, 1) for k, text in enumerate(texts)}
        absent = "None" if None in parameter.values else ""
        return [place.get(str(_listed(value)) if value is not None else absent, math.nan) for value in values], [
            (height, text) for text, height in place.items()
        ]
    numbers = [value for value in values if isinstance(value, (int, float)) and (not parameter.log or value > 0)]
    ends = [bound for bound in (parameter.min, parameter.max) if bound is not None]
    low, high = min([*numbers, *ends]), max([*numbers, *ends])

    def scale(value: float) -> float:
        if parameter.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    ticks = [(scale(value), f"{value:.3g}") for value in (low, middle, high)]
    return [scale(value) if value in numbers else math.nan for value in values], ticks


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
