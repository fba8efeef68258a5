"""Learned losses applied to other tasks: an ordinary study per task, each with the losses, the task loss and its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from olfl_ray.analysis.transfer import CONTROLS, TransferCell, transfer_cells, transfer_map
from olfl_ray.driver import StudyResult
from olfl_ray.errors import StudyError
from olfl_ray.methods import METHODS, base_passes, complete
from olfl_ray.spec import ArmSpec, ConfirmSpec, LearnedLossSpec, MetaSpec, StudySpec, base_values, get_dotted, read_spec
from olfl_ray.storage import replace_file
from olfl_ray.study.comparison import spread
from olfl_ray.study.handle import Progress, Study
from olfl_ray.study.plan import Plan

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from olfl_ray.study.results import Results

__all__ = ["Target", "Transfer", "transfer_of", "transfer_spec"]

Target: TypeAlias = str | Path | StudySpec
"""A spec, or its file."""
METHOD, FROM, STEPS = "learner.method", "loss.from", "learner.steps"
LEARNING = ("loss.", "meta.", "learner.method", "learner.options")
"""Fields of the target's arms and search that belong to a learned loss of its own."""


class Transfer:
    """A study's learned losses on other tasks; made by `Study.transfer`.

    Args:
        source: The study that learned the losses.
        losses: The trial of each loss, by its name in the tables.
        studies: The study of each task, by the name of the task's spec.
    """

    def __init__(self, source: str, losses: Mapping[str, str], studies: Mapping[str, Study]) -> None:
        self.source, self.losses, self.studies = source, losses, studies

    def plan(self) -> dict[str, Plan]:
        """What the study of each task would do.

        Raises:
            UserError: As of `Study.plan`; a loss is of another kind than the task.
        """
        return {target: study.plan() for target, study in self.studies.items()}

    def check(self) -> None:
        """Check all studies that have not begun.

        Raises:
            UserError: As of `plan`.
        """
        for study in self.studies.values():
            if not study.begun:
                study.plan()

    def run(self, *, progress: Progress = True) -> dict[str, StudyResult]:
        """Run what the studies lack, one after the other; all are checked before the first is started.

        A study that was stopped ends it: another call resumes there.

        Args:
            progress: As of `Study.run`.

        Raises:
            UserError: As of `Study.run`; nothing was started.
        """
        self.check()
        results = {}
        for target, study in self.studies.items():
            results[target] = study.run(progress=progress)
            if results[target].stopped:
                break
        return results

    @property
    def cells(self) -> list[TransferCell]:
        """One cell per loss and task, of the studies that have begun."""
        begun = {target: study.loaded()[:2] for target, study in self.studies.items() if study.begun}
        return transfer_cells(begun, list(self.losses))

    @property
    def table(self) -> pd.DataFrame:
        """One row per loss and task.

        Columns: metric, mean, sd, n of the loss; then of each control (baseline: the task loss; same_compute: the task loss with
        more steps) its mean, and of the loss's paired comparison with it difference (loss minus control), low, high, p, holm
        (p corrected over the cells) and gain (in percent of the control's mean, positive if the loss is better). NaN where
        there is none.
        """
        import pandas as pd

        rows = []
        for cell in self.cells:
            row: dict[str, Any] = {"loss": cell.loss, "target": cell.target, "metric": cell.metric}
            row |= spread(cell.values)
            for control in CONTROLS:
                d, gain = cell.against.get(control), cell.gain(control)
                found = {
                    "mean": cell.levels.get(control),
                    "difference": None if d is None else d.mean,
                    **{name: None if d is None else getattr(d, name) for name in ("low", "high", "p")},
                    "holm": cell.holm.get(control),
                    "gain": gain,
                }
                row |= {f"{control}_{name}": math.nan if value is None else value for name, value in found.items()}
            rows.append(row)
        return pd.DataFrame(rows).set_index(["loss", "target"]) if rows else pd.DataFrame()

    def plot(self) -> list[Axes]:
        """A heat map for each control: losses by tasks, how much better the loss is in percent.

        Raises:
            StudyError: No loss has two seeds yet.
        """
        import matplotlib.pyplot as plt

        from olfl_ray.analysis.canvas import drawn_by

        with drawn_by(plt.figure):
            figure = transfer_map(self.cells)
        if figure is None:
            raise self._nothing()
        return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]

    def save(self, path: str | Path) -> Path:
        """Write the heat map as .png, .svg or .pdf; as .html with the table.

        Raises:
            StudyError: No loss has two seeds yet, or the suffix is another.
        """
        import io

        from olfl_ray.analysis.canvas import as_svg

        path = Path(path)
        check_picture(path)
        figure = transfer_map(self.cells)
        if figure is None:
            raise self._nothing()
        if path.suffix == ".html":
            table = self.table.reset_index().to_html(index=False, na_rep="", float_format="{:.4g}".format)
            title = f"Losses of {self.source} on other tasks"
            page = f"<!doctype html><meta charset='utf-8'><title>{title}</title><h1>{title}</h1>{as_svg(figure)}{table}"
            data = page.encode()
        else:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=path.suffix[1:], dpi=150, facecolor="white")
            data = buffer.getvalue()
        try:
            replace_file(path, data)
        except OSError as error:
            raise StudyError(f"out: {path} can't be written ({error.strerror}); name another file") from None
        return path

    def __repr__(self) -> str:
        return f"Transfer({self.source!r}, losses {', '.join(self.losses)}, to {', '.join(self.studies)})"

    def _nothing(self) -> StudyError:
        return StudyError(
            f"transfer of {self.source!r}: no loss has two seeds yet, so there is nothing to draw; run it"
        )


def check_picture(path: Path) -> None:
    """Refuse a name of a picture's file that has another suffix.

    Raises:
        StudyError: Names the suffixes.
    """
    if path.suffix not in (".png", ".svg", ".pdf", ".html"):
        raise StudyError(f"out: {path} ends in no format of a picture; use .png, .svg, .pdf or .html")


def transfer_of(
    study: Results,
    targets: Sequence[Target],
    trials: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> Transfer:
    """As `Study.transfer`."""
    losses = _losses(study, trials)
    passes = max(base_passes(study.trial(trial).config) for trial in losses.values())
    sources = {name: (f"{study.name}/{trial}", study.trial(trial).config.loss.name) for name, trial in losses.items()}
    studies: dict[str, Study] = {}
    for target in targets:
        spec = complete(target) if isinstance(target, StudySpec) else complete(read_spec(target, overrides))
        if spec.name in studies:
            raise StudyError(f"to: two specs have the name {spec.name!r}; rename one of them")
        own = f"{name or study.name}-to-{spec.name}"
        studies[spec.name] = Study.from_spec(transfer_spec(spec, own, sources, passes), home=study.home)
    if not studies:
        raise StudyError("to: names no spec; name at least one")
    return Transfer(study.name, losses, studies)


def transfer_spec(target: StudySpec, name: str, losses: Mapping[str, tuple[str, str]], passes: int) -> StudySpec:
    """The study of some losses on a target's task: the arms `baseline` and `same_compute`, and one per loss.

    All arms have the settings, the searched fields and the number of trials of the target's baseline: its arm `baseline`, else
    its first with that method, else the study's own settings.

    Args:
        target: The task's spec.
        name: Name of the new study.
        losses: By arm the trial that learned the loss, STUDY/ARM/ORDINAL, and the name of the loss (`loss.name`).
        passes: Base-learner passes that the control `same_compute` has more than the others.

    Raises:
        StudyError: The name is too long.
        SpecError: A loss does not fit.
    """
    if len(name) > 64:
        raise StudyError(
            f"to: the study would be named {name!r}, but a name has at most 64 characters; give a shorter `name=`"
        )
    methods = {arm: get_dotted(base_values(target, arm), METHOD) for arm in target.arms}
    like = next((arm for arm in ("baseline", *target.arms) if methods.get(arm) == "baseline"), None)
    own = next(iter(target.arms.values())) if like is None else target.arms[like]
    shared = {} if like is None else {key: value for key, value in own.set.items() if not _learns(key)}
    searched = {} if like is None else {key: value for key, value in own.parameters.items() if not _learns(key)}

    steps = int(shared.get(STEPS, target.learner.steps)) + passes
    settings: dict[str, dict[str, Any]] = {
        "baseline": {METHOD: "baseline"},
        "same_compute": {METHOD: "baseline", STEPS: steps},
    }
    for loss, (source, named) in losses.items():
        builder = {"loss.name": named} if ":" in named else {}
        settings[loss] = {METHOD: "offline", FROM: source, **builder}
    arms = {
        arm: ArmSpec(set={**shared, **more}, trials=own.trials, parameters=searched) for arm, more in settings.items()
    }
    kept = {key: value for key, value in target.search.parameters.items() if not _learns(key)}
    found = target.model_copy(
        update={
            "name": name,
            "learner": target.learner.model_copy(update={"method": "baseline", "options": {}}),
            "loss": LearnedLossSpec(),
            "meta": MetaSpec(),
            "search": target.search.model_copy(update={"parameters": kept}),
            "arms": arms,
            "confirm": ConfirmSpec(seeds=target.confirm.seeds),
        }
    )
    return complete(StudySpec.model_validate(found.model_dump(mode="json", by_alias=True)))


def _losses(study: Results, trials: Sequence[str] | None) -> dict[str, str]:
    """Trials by name of their loss: the winner of each arm whose theta is trained on a loss; or those that are given."""
    if trials:
        found = {}
        for trial in trials:
            arm = study.trial(trial).arm
            taken = arm in CONTROLS or sum(other.partition("/")[0] == arm for other in trials) > 1
            found[trial.replace("/", "-") if taken else arm] = trial
        return found
    spec, state, _ = study.loaded()
    found = {}
    for arm in spec.arms:
        best = state.best(arm, spec.search.goal)
        if best is None:
            continue
        method = study.trial(str(best.id)).config.learner.method
        if METHODS.find(method, METHOD).phi == "loss":
            found[f"{arm}-{best.id.ordinal}" if arm in CONTROLS else arm] = str(best.id)
    if not found:
        raise StudyError(f"study {study.name!r}: no arm with a learned loss has a finished trial; run more of it first")
    return found


def _learns(field: str) -> bool:
    return field in ("loss", "meta") or field.startswith(LEARNING)
