"""The page of the digits benchmark: scores, sparsity, pruned size and speed, transfer to the unseen task; and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from experiments.sparsity.digits import SCRATCH, SHOTS, STEPS, UNSEEN, Confirmed, Transfer
from olfl_ray.analysis import holm, mean, number, paired, sd
from olfl_ray.analysis.canvas import as_svg, grid, legend, style
from olfl_ray.machine import processor
from olfl_ray.records import names
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_digits"]

BASELINE = "baseline"
TITLES = {
    "baseline": "dense",
    "fixed": "fixed, best of the grid",
    "learned": "learned (proximal step)",
    "penalised": "learned (penalised loss)",
}
SPARSITY = f"{names.SELECTION_PREFIX}group_sparsity"
Arms = Mapping[str, Mapping[int, Confirmed]]


def write_digits(study: Study, found: Arms, fresh: Mapping[int, Transfer], folder: Path) -> Path:
    """Write `DIGITS.md` and its picture.

    Args:
        study: The finished study.
        found: By arm and seed what became of its confirming networks.
        fresh: By seed what a new backbone learns of the unseen task.
        folder: Folder of the page.
    """
    score = names.metric_of(study.spec.search.metric)
    seeds = len(found[BASELINE])
    lines = [
        "# Multi-task digits",
        "",
        f"`olfl sweep run sweeps/{study.name}.yaml` and `python -m experiments.sparsity digits` wrote this (one thread, "
        f"{processor()}, torch {torch.__version__}, with other load on the machine). {seeds} confirming seeds, each another "
        "split; differences are to the dense arm, paired by seed, with Student's 95 % interval; p is Holm's over the arms.",
        "",
        "## Score and sparsity on the test split",
        "",
        f"| arm | {score} | difference [95 % CI], p | lambda | zero groups | zero weights | weights when pruned | speed |",
        "|---|---|---|---|---|---|---|---|",
        *_scores(study, found, score),
        "",
        "Zero groups and weights: of those that the penalty has, the backbone's. Weights: of the whole network, heads included. "
        "Speed: how many times as fast the pruned network is on 256 examples, median over the seeds.",
        "",
        "![Score against sparsity](pictures/digits.svg)",
        "",
        "*Left: search trials on the validation split; the line is the grid of strengths. Right: confirming seeds, test split.*",
        "",
        f"## The unseen task `{UNSEEN}`",
        "",
        f"Error on the test split after {STEPS} steps of Adam on few examples of it: a new head alone on the pruned backbone, or "
        "head and backbone.",
        "",
        "| backbone | " + " | ".join(f"head, {n} | head and backbone, {n}" for n in SHOTS) + " |",
        "|---" * (1 + 2 * len(SHOTS)) + "|",
        *_transfers(found, fresh),
        "",
    ]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    LocalStorage(folder).write("pictures/digits.svg", as_svg(_picture(study, found, score)).encode())
    LocalStorage(folder).write("DIGITS.md", "\n".join(lines).encode())
    return folder / "DIGITS.md"


def _scores(study: Study, found: Arms, score: str) -> list[str]:
    values = {arm: {seed: one.metrics[score] for seed, one in own.items()} for arm, own in found.items()}
    differences = {arm: paired(BASELINE, own, values[BASELINE]) for arm, own in values.items() if arm != BASELINE}
    known = {arm: one for arm, one in differences.items() if one is not None}
    corrected = dict(zip(known, holm([one.p for one in known.values()]), strict=True))
    lines = []
    for arm, own in found.items():
        one, strengths = known.get(arm), _strengths(study, arm)
        cells = [TITLES.get(arm, arm), _spread(list(values[arm].values()))]
        cells += [""] if one is None else [f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}], p {corrected[arm]:.2g}"]
        cells += [_spread(strengths) if strengths else "–"]
        for name in ("group_sparsity", "weight_sparsity"):
            cells += [f"{100 * mean([one.metrics.get(name, 0.0) for one in own.values()]):.1f} %"]
        dense = next(iter(own.values())).dense
        cells += [f"{mean([one.weights for one in own.values()]):,.0f} of {dense:,}"]
        cells += [f"{median([one.factor for one in own.values()]):.2f} ×"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _strengths(study: Study, arm: str) -> list[float]:
    """lambda of each confirming trial at its end."""
    trials = [study.trial(f"{arm}/c{index}") for index in range(study.spec.confirm.seeds)]
    fixed = [float(trial.config.learner.optimizer.options.get("strength") or math.nan) for trial in trials]
    if any(map(math.isfinite, fixed)):
        return fixed
    frames = [study.curves(trial.name, metric="phi/strength") for trial in trials]
    return [float(frame["value"].iloc[-1]) for frame in frames if len(frame)]


def _transfers(found: Arms, fresh: Mapping[int, Transfer]) -> list[str]:
    rows = {SCRATCH: list(fresh.values())}
    rows |= {TITLES.get(arm, arm): [one.transfer for one in own.values()] for arm, own in found.items()}
    return [
        f"| {name} | "
        + " | ".join(
            f"{_spread([one.probed[n] for one in own])} | {_spread([one.tuned[n] for one in own])}" for n in SHOTS
        )
        + " |"
        for name, own in rows.items()
    ]


def _spread(values: Sequence[float]) -> str:
    return number(mean(values)) + (f" ± {sd(values):.2g}" if len(values) > 1 else "")


def _picture(study: Study, found: Arms, score: str) -> Figure:
    figure, ((left, right),) = grid(1, 2, width=9, height=3.6)
    frame = study.trials()
    searched = frame[~frame["confirming"].astype(bool)]
    for place, arm in enumerate(study.spec.arms):
        color, title = style(place)[0], TITLES.get(arm, arm)
        own = searched[searched["arm"] == arm].sort_values(SPARSITY)
        left.plot(own[SPARSITY], own["value"], "o-", color=color, label=title)
        points = [one.metrics for one in found[arm].values()]
        right.plot(
            [one["group_sparsity"] for one in points], [one[score] for one in points], "o", color=color, alpha=0.6
        )
    left.set(xlabel="fraction of zero groups", ylabel=f"{score} (validation)")
    right.set(xlabel="fraction of zero groups", ylabel=f"{score} (test)")
    legend(left)
    return figure
