"""Learned losses on other tasks: one cell per loss and task, each compared with the task loss, Holm over the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from olfl_ray.analysis.canvas import INK, grid, ink
from olfl_ray.analysis.statistics import Difference, holm, mean, paired
from olfl_ray.analysis.tables import values_on_test
from olfl_ray.ledger import StudyState
from olfl_ray.records import names
from olfl_ray.spec import StudySpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CONTROLS", "TransferCell", "transfer_cells", "transfer_map"]

CONTROLS = {"baseline": "task loss", "same_compute": "same compute"}
"""Arms that every loss is compared with, and what they are: the task loss, and the task loss with the same compute."""
LEVEL = 0.05
"""Level of the tests, after the correction."""


@dataclass(frozen=True, kw_only=True)
class TransferCell:
    """One loss on one task.

    Args:
        loss: The loss: its arm in the study that learned it.
        target: The task: the name of its spec.
        metric: The task's search metric, on the test split.
        goal: minimize or maximize.
        values: The metric by confirming seed.
        levels: Mean of the metric of each control (`CONTROLS`) that has one.
        against: Paired comparison with each control (loss minus control); without those that lack two common seeds.
        holm: For each of these, the p value corrected by Holm over the cells.
    """

    loss: str
    target: str
    metric: str
    goal: str
    values: Mapping[int, float]
    levels: Mapping[str, float]
    against: Mapping[str, Difference]
    holm: Mapping[str, float] = field(default_factory=dict)

    def gain(self, control: str) -> float | None:
        """How much better than a control it is, in percent of the control's mean; None if that is 0 or unknown."""
        level = self.levels.get(control)
        if control not in self.against or not level:
            return None
        sign = -1 if self.goal == "minimize" else 1
        return sign * 100 * self.against[control].mean / abs(level)

    def differs(self, control: str) -> bool:
        """Whether the difference is significant at level 0.05 after the correction."""
        return self.holm.get(control, 1.0) < LEVEL


def transfer_cells(studies: Mapping[str, tuple[StudySpec, StudyState]], losses: Sequence[str]) -> list[TransferCell]:
    """The cells of several tasks, task by task. Each control is one family of tests, of as many as there are cells.

    Args:
        studies: By the task's name the spec and the state of its study, in which each loss and each control is an arm.
        losses: The arms of the losses.
    """
    found = []
    for target, (spec, state) in studies.items():
        metric = names.on_test(spec.search.metric)
        values = {arm: values_on_test(spec, state, arm, metric) for arm in spec.arms}
        controls = {arm: values[arm] for arm in CONTROLS if values.get(arm)}
        for loss in losses:
            own = {arm: paired(arm, values[loss], theirs) for arm, theirs in controls.items()}
            found.append(
                TransferCell(
                    loss=loss,
                    target=target,
                    metric=metric,
                    goal=spec.search.goal,
                    values=values[loss],
                    levels={arm: mean(list(theirs.values())) for arm, theirs in controls.items()},
                    against={arm: difference for arm, difference in own.items() if difference is not None},
                )
            )
    return _corrected(found)


def _corrected(cells: Sequence[TransferCell]) -> list[TransferCell]:
    """The cells with Holm's p values."""
    corrected: list[dict[str, float]] = [{} for _ in cells]
    for control in CONTROLS:
        family = [index for index, cell in enumerate(cells) if control in cell.against]
        adjusted = holm([cells[index].against[control].p for index in family])
        for index, p in zip(family, adjusted, strict=True):
            corrected[index][control] = p
    return [replace(cell, holm=own) for cell, own in zip(cells, corrected, strict=True)]


def transfer_map(cells: Sequence[TransferCell]) -> Figure | None:
    """A heat map for each control: losses by tasks, the gain in percent; a star where it is significant after Holm."""
    losses = list(dict.fromkeys(cell.loss for cell in cells))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    gains = {(cell.loss, cell.target, control): cell.gain(control) for cell in cells for control in cell.against}
    known = [abs(gain) for gain in gains.values() if gain is not None]
    if not known:
        return None
    controls = [control for control in CONTROLS if any(control in cell.against for cell in cells)]
    most = max(*known, 1e-9)
    size = {"width": 1.6 + len(controls) * (0.5 + 1.3 * len(targets)), "height": 1.3 + 0.5 * len(losses)}
    figure, ((*panels,),) = grid(1, len(controls), **size, sharey=True)
    starred = {(cell.loss, cell.target, control) for cell in cells for control in CONTROLS if cell.differs(control)}
    for axes, control in zip(panels, controls, strict=True):
        table = [[gains.get((loss, target, control)) for target in targets] for loss in losses]
        image = axes.imshow(
            [[float("nan") if gain is None else gain for gain in row] for row in table],
            cmap="RdBu",
            vmin=-most,
            vmax=most,
            aspect="auto",
        )
        for y, row in enumerate(table):
            for x, gain in enumerate(row):
                star = " *" if (losses[y], targets[x], control) in starred else ""
                text = "–" if gain is None else f"{gain:+.1f}{star}"
                strong = gain is not None and abs(gain) > 0.6 * most
                axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if strong else INK)
        axes.set_xticks(range(len(targets)), targets)
        axes.set_yticks(range(len(losses)), losses)
        axes.set_title(f"against the {CONTROLS[control]}")
        axes.grid(visible=False)
    bar = figure.colorbar(image, ax=panels, label="better by, %")
    ink(bar.ax)
    return figure
