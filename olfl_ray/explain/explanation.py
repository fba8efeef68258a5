"""What a learned loss is: the nearest known losses, a formula, its faults, and how it changed during training."""

# N examples, C outputs, P grid points

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olfl_ray.errors import DataError, SetupError
from olfl_ray.explain.checks import Finding, findings_of, is_flat, minimisers
from olfl_ray.explain.families import FAMILIES
from olfl_ray.explain.formulas import FormulaFit, chosen_fit, fitted_formulas
from olfl_ray.explain.nearest import Member, Neighbours
from olfl_ray.explain.reference import Reference, pair_values, ranges_seen, reference_of, slope_of
from olfl_ray.explain.surfaces import Surface, surface_of
from olfl_ray.losses import LearnedLoss
from olfl_ray.spec import StudySpec
from olfl_ray.storage import replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation:
    """What a learned loss is at one time, and at each recorded time before; made by `Study.explain` and `explain_loss`.

    Args:
        source: Which loss.
        step: Its base step; None: of a loss outside of a trial.
        reduction: mean or sum, over the outputs.
        reference: Where gradients are compared.
        steepness: Root mean square of its gradient over that of the task loss, both reduced by `reduction`.
        members: The nearest member of each known family, the nearest first; empty for a flat loss.
        findings: Where it is flat, rewards errors, restrains confidence, or is improper.
        formulas: The best formula of each number of terms; empty for a flat loss.
        truths: True probabilities (of a regression: means).
        minima: The outputs that minimise the expected loss there.
        moments: The surface at each recorded moment, the first one first, up to this loss.
        history: At each moment its base step, its steepness, and the nearest member of each family.
        spec: The spec of its study; None: of a loss outside of a study.
        arm: Its arm there.
    """

    source: str
    step: int | None
    reduction: str
    reference: Reference
    steepness: float
    members: Sequence[Member]
    findings: Sequence[Finding]
    formulas: Sequence[FormulaFit]
    truths: Sequence[float]
    minima: Sequence[float]
    moments: Sequence[Surface]
    history: Sequence[tuple[int, float, Sequence[Member]]]
    spec: StudySpec | None = None
    arm: str = ""

    @property
    def nearest(self) -> Member | None:
        """The nearest member of all families; None: the loss is flat."""
        return self.members[0] if self.members else None

    @property
    def formula(self) -> FormulaFit | None:
        """The shortest formula whose misfit is at most 0.02 larger than the smallest; None: the loss is flat."""
        return chosen_fit(self.formulas)

    @cached_property
    def families(self) -> pd.DataFrame:
        """One row per family, the nearest first; the index is its name.

        Columns: parameter, value, low, high, identified, at_bound, factor, cosine, misfit, formula (see `Member`).
        """
        return self._frame(self.members, Member).set_index("family")

    @cached_property
    def fits(self) -> pd.DataFrame:
        """One row per number of terms: formula, latex, misfit."""
        return self._frame(self.formulas, FormulaFit).set_index("terms")

    @cached_property
    def checks(self) -> pd.DataFrame:
        """One row per check: found, share, where."""
        return self._frame(self.findings, Finding).set_index("check")

    @cached_property
    def expected(self) -> pd.DataFrame:
        """The minimum of the expected loss for each truth: truth, minimum. They are equal for a proper loss."""
        import pandas as pd

        return pd.DataFrame({"truth": self.truths, "minimum": self.minima})

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per recorded moment and family: step, family, value, misfit, steepness."""
        import pandas as pd

        rows = [
            {"step": step, "family": one.family, "value": one.value, "misfit": one.misfit, "steepness": steepness}
            for step, steepness, members in self.history
            for one in members
        ]
        return pd.DataFrame(rows, columns=["step", "family", "value", "misfit", "steepness"])

    @cached_property
    def surface(self) -> pd.DataFrame:
        """The loss and its slope at each recorded moment: step, target, output, learned, slope."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "step": moment.step,
                    "target": moment.target_P,
                    "output": moment.output_P,
                    "learned": moment.value_P,
                    "slope": moment.slope_P,
                }
            )
            for moment in self.moments
        ]
        return pd.concat(parts, ignore_index=True)

    def plot(self) -> list[Axes]:
        """Draw small multiples with pyplot: one column per recorded moment; returns the axes, row by row."""
        import matplotlib.pyplot as plt

        from olfl_ray.analysis.canvas import drawn_by
        from olfl_ray.explain.pictures import multiples

        with drawn_by(plt.figure):
            return list(multiples(self).axes)

    def film(self, path: str | Path) -> Path:
        """Write the loss, its slope and its pull over training as an animated GIF, one frame per recorded moment.

        Raises:
            SetupError: The file can't be written.
        """
        from olfl_ray.explain.pictures import film

        return _written(Path(path), film(self))

    def save(self, folder: str | Path) -> list[Path]:
        """Write `film.gif`, `moments.svg`, the tables as CSV, and `explanation.json` into a folder, which is made.

        Raises:
            SetupError: A file can't be written.
        """
        from olfl_ray.analysis.canvas import as_svg
        from olfl_ray.explain.pictures import film, multiples

        place = Path(folder)
        tables = ("families", "fits", "checks", "expected", "training", "surface")
        files = {"film.gif": film(self), "moments.svg": as_svg(multiples(self)).encode()}
        for name in tables:
            frame = getattr(self, name)
            files[f"{name}.csv"] = frame.to_csv(index=frame.index.name is not None).encode()
        document = json.dumps(_finite(self.document()), indent=2, allow_nan=False)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"out: {place} can't be made ({error.strerror}); name another folder") from None
        return [_written(place / name, data) for name, data in {**files, "explanation.json": document.encode()}.items()]

    def as_arm(self, path: str | Path) -> Path:
        """Write the study's spec with one more arm, in which the formula is a fixed loss; `olfl sweep run` then adds that arm.

        Raises:
            DataError: The loss is not a study's, or it is flat, so that it has no formula.
            SpecError: The study searches a setting in every arm that the formula does not have.
            SetupError: The file can't be written.
        """
        from olfl_ray.explain.arm import with_formula

        if self.spec is None:
            raise DataError(f"as-arm: {self.source} is not a study's trial, so it has no spec; name STUDY/ARM/ORDINAL")
        if self.formula is None:
            raise DataError(f"as-arm: {self.source} is flat and has no formula; name another trial or moment")
        notes = [
            f"The formula of {self.source}{'' if self.step is None else f' at step {self.step}'} competes as a fixed loss.",
            f"The misfit of its gradient is {self.formula.misfit:.3f} (0: the same gradient, 1: nothing in common).",
        ]
        text = with_formula(self.spec, self.arm, self.formula.formula, self.reduction)
        return _written(Path(path), ("".join(f"# {note}\n" for note in notes) + text).encode(), "as-arm")

    def document(self) -> dict[str, Any]:
        """All but the surfaces, as plain values."""
        chosen = self.formula
        return {
            "source": self.source,
            "step": self.step,
            "task": self.reference.kind,
            "reference": self.reference.wording,
            "seen": {name: list(pair) for name, pair in self.reference.seen.items()},
            "steepness": self.steepness,
            "families": [dataclasses.asdict(member) for member in self.members],
            "formula": None if chosen is None else dataclasses.asdict(chosen),
            "fits": [dataclasses.asdict(fit) for fit in self.formulas],
            "checks": [dataclasses.asdict(finding) for finding in self.findings],
            "expected": self.expected.to_dict("records"),
            "training": self.training.to_dict("records"),
        }

    def __repr__(self) -> str:
        if self.nearest is None:
            return f"Explanation({self.source!r}: flat)"
        near = f"nearest {self.nearest}, misfit {self.nearest.misfit:.2g}"
        return f"Explanation({self.source!r}: {near}{'' if self.formula is None else f'; {_fit_words(self.formula)}'})"

    def __str__(self) -> str:
        lines = [
            f"{self.source}{'' if self.step is None else f' at step {self.step}'}",
            f"reference: {self.reference.wording}",
        ]
        lines.append(f"steepness: {self.steepness:.3g} times the task loss's gradient")
        for member in self.members:
            interval = f", {member.low:.3g} to {member.high:.3g}" if member.parameter else ""
            bound = "; at the bound of the search" if member.at_bound else ""
            lines.append(f"  misfit {member.misfit:.3f}  {member}{interval}{bound}")
        if self.formula is not None:
            lines.append(f"formula: {self.formula.formula}")
            lines.append(f"  misfit {self.formula.misfit:.3f} of its gradient")
        lines += [f"{one.check}: {one.where if one.found else 'no'}" for one in self.findings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        frame = self.families[["parameter", "value", "low", "high", "misfit"]] if self.members else None
        tables = [] if frame is None else [frame.to_html(na_rep="", float_format="{:.3g}".format)]
        tables.append(self.checks.to_html(float_format="{:.1%}".format))
        return f"<b>{escape(repr(self))}</b>{''.join(tables)}"

    @staticmethod
    def _frame(rows: Sequence[Any], kind: type[Any]) -> pd.DataFrame:
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(kind)]
        return pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=columns)


def explain(
    losses: Sequence[tuple[int | None, LearnedLoss]],
    source: str,
    *,
    classes: int = 2,
    spec: StudySpec | None = None,
    arm: str = "",
) -> Explanation:
    """Explain the last of several learned losses; the others are its earlier states.

    Args:
        losses: Base step and loss, in the order of training.
        source: What to call it.
        classes: C of a classification.
        spec: The spec of its study; None: it has none.
        arm: Its arm there.

    Raises:
        DataError: It is of a user's own task, or not finite.
    """
    step, loss = losses[-1]
    if loss.kind not in FAMILIES:
        raise DataError(
            f"{source!r}: was learned for the task {loss.kind}, but only losses of {' and '.join(FAMILIES)} are explained"
        )
    seen, known = ranges_seen(loss)
    reference = reference_of(loss.kind, seen, classes=classes, known=known)
    neighbours = Neighbours(reference, FAMILIES[loss.kind])
    history, moments = [], []
    for at, one in losses:
        gradient = reference.gradient(slope_of(one.network))
        if not np.isfinite(gradient).all():
            raise DataError(f"{source!r}: its gradient at step {at} is not finite, so there is nothing to compare")
        flat = is_flat(gradient, reference)
        members = [] if flat else neighbours.of(gradient)
        part = 1 / reference.outputs if reference.classes and one.reduction == "mean" else 1.0
        steepness = float(np.linalg.norm(gradient) / np.linalg.norm(reference.task_gradient)) * part
        history.append((at or 0, steepness, members))
        moments.append(surface_of(one.network, reference, at or 0))
    both = pair_values(loss.network)
    truths, minima, span = minimisers(lambda y, f: both(y, f)[0], reference)
    return Explanation(
        source=source,
        step=step,
        reduction=loss.reduction,
        reference=reference,
        steepness=steepness,
        members=members,
        findings=findings_of(gradient, reference, truths, minima, span),
        formulas=[] if flat else fitted_formulas(gradient, reference),
        truths=truths.tolist(),
        minima=minima.tolist(),
        moments=moments,
        history=history,
        spec=spec,
        arm=arm,
    )


def _fit_words(fit: FormulaFit) -> str:
    return f"formula {fit.formula}, misfit {fit.misfit:.2g}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _written(path: Path, data: bytes, option: str = "out") -> Path:
    try:
        replace_file(path, data)
    except OSError as error:
        raise SetupError(f"{option}: {path} can't be written ({error.strerror}); name another") from None
    return path
