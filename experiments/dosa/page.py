"""The page of a benchmark of multi-label arms: F1 scores on fresh seeds, and each label's F1 against its frequency."""

# L labels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.dosa.blocks import BLOCKS, block_table
from olfl_ray import data
from olfl_ray.analysis import holm, mean, number, paired, sd, values_on_test
from olfl_ray.analysis.canvas import grid, legend, style
from olfl_ray.driver import data_root
from olfl_ray.ledger import StudyState
from olfl_ray.machine import processor, version_of
from olfl_ray.records import names
from olfl_ray.spec import StudySpec
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Home, Study

__all__ = ["frequencies", "per_label", "table", "write_page"]

ALSO = ("micro_f1", "hamming")
"""Metrics of the table besides the study's own."""
DIGITS = 3
TEST_LABEL = "test/f1_"


def write_page(name: str, home: Home, folder: Path) -> Path:
    """Write `NAME.md` and `NAME.png` from a study of a multi-label data set.

    Args:
        name: Name of the study.
        home: The home folder with it.
        folder: Folder of the page.
    """
    study = Study.open(name, home=home)
    spec, state = study.loaded()[:2]
    shares = frequencies(spec, home)
    lines = [
        f"# {name}",
        "",
        f"`python -m experiments.dosa run {name}` ran this on {processor()}, PyTorch {version_of('torch')}, "
        f"{spec.concurrency} trials at a time.",
        "",
        *table(spec, state),
        "",
        f"![F1 of each label against its frequency]({name}.png)",
        "",
        *label_table(spec, state, shares),
        "",
    ]
    for arm in spec.arms:
        if BLOCKS in spec.arms[arm].set.get("learner.options", {}):
            lines += [*block_table(study, arm, home), ""]
    LocalStorage(folder).write(f"{name}.md", "\n".join(lines).encode())
    draw(spec, state, shares, folder / f"{name}.png")
    return folder / f"{name}.md"


def table(spec: StudySpec, state: StudyState) -> list[str]:
    """The arms on fresh seeds, each compared with the first by seed; p is Holm's over the arms."""
    metric = names.on_test(spec.search.metric)
    first, *others = spec.arms
    values = {arm: values_on_test(spec, state, arm, metric) for arm in spec.arms}
    found = {arm: paired(first, values[arm], values[first]) for arm in others}
    tested = {arm: one for arm, one in found.items() if one is not None}
    corrected = dict(zip(tested, holm([one.p for one in tested.values()]), strict=True))
    also = [names.on_test(name) for name in ALSO]
    lines = [
        f"| arm | {metric}, mean ± sd | n | {' | '.join(also)} | difference to {first} [95 % CI] | p | detectable |",
        "|---" * (6 + len(also)) + "|",
    ]
    for arm, own in values.items():
        seen = list(own.values())
        cells = [arm, f"{mean(seen):.{DIGITS}f} ± {sd(seen):.{DIGITS}f}" if len(seen) > 1 else "–", str(len(seen))]
        for other in also:
            rest = list(values_on_test(spec, state, arm, other).values())
            cells.append(f"{mean(rest):.{DIGITS}f}" if rest else "–")
        if (one := tested.get(arm)) is None:
            cells += ["", "", ""]
        else:
            interval = f"{number(one.mean, '+')} [{number(one.low, '+')}, {number(one.high, '+')}]"
            cells += [interval, f"{corrected[arm]:.3f}", number(one.detectable)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def per_label(spec: StudySpec, state: StudyState, labels: Sequence[str]) -> dict[str, list[float]]:
    """Mean test F1 of each label over fresh seeds, by arm."""
    return {
        arm: [mean(list(values_on_test(spec, state, arm, TEST_LABEL + label).values()) or [0.0]) for label in labels]
        for arm in spec.arms
    }


def frequencies(spec: StudySpec, home: Home) -> dict[str, float]:
    """Share of examples that have each label, from rare to common; a label's name is that of its metric."""
    named = spec.task.dataset
    found = data.load(named.name, named.options, cache=home.cache, root=data_root())
    shares = found.y.double().mean(0).tolist()
    return dict(sorted(zip(found.output_names, shares, strict=True), key=lambda pair: pair[1]))


def label_table(spec: StudySpec, state: StudyState, shares: Mapping[str, float]) -> list[str]:
    """F1 of each label by arm, from rare to common."""
    found = per_label(spec, state, list(shares))
    lines = [f"| label | share | {' | '.join(found)} |", "|---" * (2 + len(found)) + "|"]
    for index, (label, share) in enumerate(shares.items()):
        cells = [f"{values[index]:.{DIGITS}f}" for values in found.values()]
        lines.append(f"| {label} | {share:.{DIGITS}f} | {' | '.join(cells)} |")
    return lines


def draw(spec: StudySpec, state: StudyState, shares: Mapping[str, float], path: Path) -> None:
    """F1 against frequency, one line per arm, as a PNG file."""
    figure, panels = grid(1, 1, width=7.0, height=3.6)
    axes = panels[0][0]
    for place, (arm, values) in enumerate(per_label(spec, state, list(shares)).items()):
        color, dash = style(place)
        axes.plot(list(shares.values()), values, dash, color=color, marker="o", markersize=3, linewidth=1.2, label=arm)
    axes.set_xlabel("share of examples with the label")
    axes.set_ylabel("test F1, mean over seeds")
    legend(axes, outside=True)
    figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
