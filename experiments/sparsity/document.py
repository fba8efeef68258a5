"""The pages of the benchmark: tables, and pictures of score against sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.sparsity.planted import (
    ARMS,
    BEST,
    EXAMPLES,
    GRID,
    INPUTS,
    NETWORKS,
    NOISE,
    STEPS,
    SUPPORT,
    TASKS,
    Found,
)
from olfl_ray.analysis import holm, mean, number, paired, sd
from olfl_ray.analysis.canvas import as_svg, grid, legend, style
from olfl_ray.machine import processor
from olfl_ray.storage import LocalStorage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Results", "write_planted"]

Results = Mapping[str, Sequence[tuple[Mapping[str, Found], Sequence[Found]]]]
"""By network, for each seed: each arm, and each strength of the grid."""


def write_planted(results: Results, seconds: float, folder: Path) -> Path:
    """Write `PLANTED.md` and its picture.

    Args:
        results: What was found.
        seconds: How long it took.
        folder: Folder of the page.
    """
    seeds = len(next(iter(results.values())))
    lines = [
        "# A planted support",
        "",
        f"`python -m experiments.sparsity planted --seeds {seeds}` wrote this in {seconds:.0f} s on {processor()}, one thread, "
        f"torch {torch.__version__}, with other load on the machine.",
        "",
        f"{TASKS} linear regressions on {INPUTS} inputs, of which the same {SUPPORT} matter; noise {NOISE} of the signal's "
        f"deviation; {EXAMPLES} train and {EXAMPLES} validation examples, targets of variance 1. Groups: the inputs of the first "
        f"layer. {STEPS} steps of SGD on all train examples. *Grid*: {len(GRID)} strengths from {GRID[0]:.3g} to {GRID[-1]:.2g}, "
        "the one with the lowest validation error counts. *Learned*: one training; the validation examples are what lambda is "
        "learned on. Each seed is another problem. Differences are to the best of the grid, paired by seed, with Student's 95 % "
        "interval; p is Holm's.",
        "",
    ]
    for name, found in results.items():
        lines += [f"## {name}", "", *_table(found), "", "Each strength of the grid, means over the seeds:", ""]
        lines += [*_fixed(found), ""]
    lines += [
        "![Test error against sparsity](pictures/planted.svg)",
        "",
        "*Mean over the seeds; the line is the grid, from its smallest strength to its largest. Left: a lower error; right: F1.*",
        "",
    ]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    LocalStorage(folder).write("pictures/planted.svg", as_svg(_picture(results)).encode())
    LocalStorage(folder).write("PLANTED.md", "\n".join(lines).encode())
    return folder / "PLANTED.md"


def _table(found: Sequence[tuple[Mapping[str, Found], Sequence[Found]]]) -> list[str]:
    lines = [
        "| arm | trained networks | test error | difference [95 % CI], p | lambda | zero inputs | F1 of the support |",
        "|---|---|---|---|---|---|---|",
    ]
    by_arm = {arm: [arms[arm] for arms, _ in found] for arm in ARMS}
    errors = {arm: {seed: own.error for seed, own in enumerate(values)} for arm, values in by_arm.items()}
    differences = {arm: paired(BEST, own, errors[BEST]) for arm, own in errors.items() if arm != BEST}
    ps = holm([1.0 if one is None else one.p for one in differences.values()])
    corrected = dict(zip(differences, ps, strict=True))
    for arm, values in by_arm.items():
        one = differences.get(arm)
        difference = "" if one is None else f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}], {_p(corrected[arm])}"
        cells = [arm, str(values[0].trainings), _spread([own.error for own in values]), difference]
        cells += [_spread([own.strength for own in values]) if values[0].strength else "–"]
        cells += [f"{100 * mean([own.sparsity for own in values]):.0f} %", f"{mean([own.f1 for own in values]):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _fixed(found: Sequence[tuple[Mapping[str, Found], Sequence[Found]]]) -> list[str]:
    lines = ["| lambda | test error | zero inputs | F1 of the support |", "|---|---|---|---|"]
    for index, strength in enumerate(GRID):
        own = [grid[index] for _, grid in found]
        error, zero, f1 = (mean([getattr(one, name) for one in own]) for name in ("error", "sparsity", "f1"))
        lines.append(f"| {strength:.3g} | {number(error)} | {100 * zero:.0f} % | {f1:.2f} |")
    return lines


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p {value:.2g}"


def _spread(values: Sequence[float]) -> str:
    return number(mean(values)) + (f" ± {sd(values):.2g}" if len(values) > 1 else "")


def _picture(results: Results) -> Figure:
    figure, rows = grid(len(NETWORKS), 2, width=9, height=3.4 * len(NETWORKS))
    for (name, found), (left, right) in zip(results.items(), rows, strict=True):
        for axes, value, label in ((left, "error", "test error"), (right, "f1", "F1 of the support")):
            curve = [[seed[1][index] for seed in found] for index in range(len(GRID))]
            points = [
                (mean([one.sparsity for one in own]), mean([getattr(one, value) for one in own])) for own in curve
            ]
            axes.plot(*zip(*points, strict=True), "o-", color="#80868f", markersize=4, label="fixed, each of the grid")
            for place, arm in enumerate(ARMS):
                own = [arms[arm] for arms, _ in found]
                x, y = mean([one.sparsity for one in own]), mean([getattr(one, value) for one in own])
                axes.plot([x], [y], "D", color=style(place)[0], markersize=7, label=arm)
            axes.set(xlabel="fraction of zero inputs", ylabel=label, title=name)
        legend(right, outside=True)
    return figure
