"""The paper's pictures: a forest of paired differences by benchmark, and what learned losses do in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from experiments.paper.phenomena import Curves, along, effective_rate
from experiments.paper.rows import BASELINE, METHODS, OFFLINE, ONLINE
from experiments.paper.verdicts import Comparison
from olfl_ray.analysis.canvas import INK, grid, legend, style
from olfl_ray.losses import LearnedLoss
from olfl_ray.records import names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["forest", "learned_losses", "training"]

DRAWN = (BASELINE, OFFLINE, ONLINE, "from_mlp", "replay_mlp", "online_lr")
"""Arms whose training is drawn."""


def forest(comparisons: Sequence[tuple[str, tuple[str, str], Comparison]]) -> Figure:
    """Mean paired difference and its 95 % interval, in percent of the other method's error; filled: p below 0.05 by Holm.

    Beyond 10 percent the axis is logarithmic, so that one unstable method does not squeeze the others.

    Args:
        comparisons: Label of the row, the two methods, and the first against the second.
    """
    labels = list(dict.fromkeys(label for label, _, _ in comparisons))
    figure, ((axes,),) = grid(1, 1, width=9, height=1.4 + 0.6 * len(labels))
    pairs = list(dict.fromkeys(pair for _, pair, _ in comparisons))
    for place, pair in enumerate(pairs):
        color = style(place)[0]
        for label, _, found in (one for one in comparisons if one[1] == pair):
            height = -labels.index(label) - 0.22 * (place - (len(pairs) - 1) / 2)
            low, high = (100 * end / found.level for end in (found.difference.low, found.difference.high))
            axes.plot([low, high], [height, height], color=color, linewidth=1.6)
            face = "white" if found.found == "no difference" else color
            axes.plot([found.percent], [height], "o", color=color, markerfacecolor=face, markersize=5)
        axes.plot([], [], "o-", color=color, label=" − ".join(METHODS.get(arm, arm) for arm in pair))
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks([-index for index in range(len(labels))], labels)
    axes.set_xscale("symlog", linthresh=10, linscale=2)
    low, high = axes.get_xlim()
    ticks = [tick for tick in (-100, -50, -20, -10, -5, 0, 5, 10, 20, 50, 100) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(
        xlabel="difference of test errors, % of the second method's; left of 0 the first errs less",
        ylim=(-len(labels) + 0.4, 0.6),
    )
    axes.grid(visible=False, axis="y")
    legend(axes, outside=True)
    return figure


def training(arms: Sequence[str], curves: Mapping[str, Sequence[Curves]], *, regression: bool, sgd: bool) -> Figure:
    """Panels over base steps: error on the selection split, norms of gradients, and with SGD the effective learning rate.

    Args:
        arms: The study's arms, which decide the colours.
        curves: Arm -> what its fresh seeds recorded.
        regression: Whether errors are root mean squared ones, in the target's own units.
        sgd: Whether the base optimizer is SGD: of others the effective rate says nothing.
    """
    figure, ((errors, norms, *rates),) = grid(1, 2 + sgd, width=9 + 4 * sgd, height=3.8)
    error = names.SELECTION_PREFIX + ("rmse" if regression else "error")
    for arm in (arm for arm in DRAWN if curves.get(arm)):
        color, dash = style(list(arms).index(arm))
        own: dict[str, Any] = {"color": color, "linestyle": dash}
        _line(errors, [found.get(error, {}) for found in curves[arm]], label=METHODS[arm], **own)
        for panel in rates:
            _line(panel, [effective_rate(found) for found in curves[arm]], **own)
        if arm != "online_lr":
            _line(norms, [found.get(names.TRAIN_GRAD_NORM, {}) for found in curves[arm]], **own)
            task = [found.get(names.TRAIN_TASK_GRAD_NORM, {}) for found in curves[arm]]
            _line(norms, task, band=False, color=color, linestyle=":", linewidth=1)
    norms.plot([], [], ":", color=INK, linewidth=1, label="of the task loss, at the same point")
    errors.set(
        xlabel="base step", ylabel=f"{'RMSE' if regression else 'error rate'} on the selection split", yscale="log"
    )
    norms.set(xlabel="base step", ylabel="norm of the gradient that theta follows", yscale="log")
    for panel in rates:
        panel.set(xlabel="base step", ylabel="effective learning rate", yscale="log")
    for panel in (errors, norms, *rates):
        _plain_numbers(panel.yaxis)
    legend(errors)
    legend(norms)
    return figure


def _plain_numbers(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times a power of ten, written in full."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def learned_losses(sequences: Mapping[str, Sequence[tuple[int, LearnedLoss]]], classes: int | None) -> Figure:
    """A run's learned loss at its first record and at its end, next to the task loss; marks: where it is least.

    For a classifier over the probability p of the true class, the others sharing the rest; for a regression over the
    output at target 0. Each line is shifted to 0 at its least and scaled to 1 at the left end (at output 2).

    Args:
        sequences: Arm -> the losses that a trial of it recorded, each after its number of base steps.
        classes: Number of classes; None: regression.
    """
    figure, ((*axes,),) = grid(1, len(sequences), width=4.3 * len(sequences), height=3.6, sharey=True)
    if classes is None:
        x = torch.linspace(-2, 2, 401)
        task, end, label = x**2, -1, "output, target 0"
    else:
        x = torch.linspace(1 / classes, 0.9995, 801)
        task, end, label = -x.log(), 0, "probability of the true class"
    for panel, (arm, found) in zip(axes, sequences.items(), strict=True):
        first, last = found[0], found[-1]
        moments = {f"after step {step:,}": loss for step, loss in (first, last)}
        if arm == OFFLINE:
            moments = {"frozen": last[1]}
        for place, (moment, loss) in enumerate(moments.items()):
            values = _shape(along(loss, classes, x) if classes else _at_zero(loss, x), end)
            (line,) = panel.plot(x, values, color=style(place)[0], label=moment)
            least = int(values.argmin())
            panel.plot([x[least]], [values[least]], "o", color=line.get_color(), markersize=5)
        panel.plot(x, _shape(task, end), "--", color=INK, label="task loss")
        panel.set(xlabel=label, title=METHODS.get(arm, arm), ylim=(-0.08, 1.4))
        legend(panel)
    axes[0].set_ylabel("loss, shifted and scaled")
    return figure


@torch.no_grad()
def _at_zero(loss: LearnedLoss, x: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = loss.network(x, torch.zeros_like(x))
    return value


def _shape(values: torch.Tensor, end: int) -> torch.Tensor:
    above = values - values.min()
    return above / above[end] if above[end] > 0 else above


def _line(axes: Any, seeds: Sequence[Mapping[int, float]], *, band: bool = True, **look: Any) -> None:
    """The median over seeds at each step, and a band between the quartiles; logarithmic axes take no zeros."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for found in seeds:
        for step, value in found.items():
            if value > 0:
                by_step[step].append(value)
    steps = sorted(by_step)
    axes.plot(steps, [median(by_step[step]) for step in steps], **look)
    if band:
        ranked = [sorted(by_step[step]) for step in steps]
        low, high = ([values[round(part * (len(values) - 1))] for values in ranked] for part in (0.25, 0.75))
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
