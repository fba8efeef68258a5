"""The margin loss of a trial's settings (DOSA, arXiv 2402.04596)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from olfl_ray.errors import SpecError
from olfl_ray.losses.margins import HIGHEST, Importance, MarginLoss
from olfl_ray.methods.method import Setting
from olfl_ray.spec import Strict

__all__ = ["MarginSettings", "margin_loss_of"]


class MarginSettings(Strict):
    """What every method with a margin loss has."""

    importance: Importance = "attached"
    """Factor exp(-u) of the squared distance u^2 to the margin: attached (L_fmm) | detached (no gradient) | none (L_mm)."""
    initial: Annotated[float, Field(gt=0, lt=HIGHEST)] = 1.0
    """Initial margin of each label."""
    lowest: Annotated[float, Field(gt=0, lt=HIGHEST)] = 0.5
    """Infimum of the margins, which keeps them and the scores from becoming 0 together."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over the labels: sum (as in the paper) | mean."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lowest < self.initial:
            raise ValueError(f"`lowest < initial` must hold, but lowest={self.lowest}, initial={self.initial}")
        return self


def margin_loss_of(setting: Setting, config: MarginSettings, **more: Any) -> MarginLoss:
    """The margin loss of a setting.

    Raises:
        SpecError: The task has no targets 0 and 1.
    """
    task = setting.task
    if set(task.grid(2)[0].tolist()) != {0.0, 1.0}:
        raise SpecError(
            "learner.method",
            f"is {setting.config.learner.method}, which needs labels that an example has or lacks, but the data set is a "
            f"{setting.kind}; use learner.method: baseline",
        )
    own = {name: getattr(config, name) for name in MarginSettings.model_fields}
    return MarginLoss(task, setting.outputs, **own, **more)
