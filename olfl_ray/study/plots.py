"""The report's pictures as matplotlib axes, to be changed and placed in a paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from olfl_ray.analysis import pictures
from olfl_ray.analysis.canvas import drawn_by
from olfl_ray.driver import importances_of
from olfl_ray.errors import StudyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from olfl_ray.study.results import Results

__all__ = ["Plots"]


class Plots:
    """Draws a study. Each method makes a figure of pyplot, which a notebook shows, and returns its axes.

    Args:
        study: The study.
    """

    def __init__(self, study: Results) -> None:
        self._study = study

    def __repr__(self) -> str:
        drawn = ", ".join(name for name in vars(Plots) if not name.startswith("_"))
        return f"<plots of study {self._study.name!r}: {drawn}>"

    def learning_curves(self) -> Axes:
        """The search metric over steps: mean and standard deviation over each winner's fresh seeds, else its replicates."""
        spec, state, storage = self._study.loaded()
        return self._drawn(lambda: pictures.learning_curves(spec, state, storage), "no trial has finished")[0]

    def learned_loss(self, arm: str) -> list[Axes]:
        """An arm's learned loss over the output at several steps, next to the task loss; one panel per target."""
        spec, state, storage = self._study.loaded(arm)
        return self._drawn(
            lambda: pictures.learned_loss(spec, state, storage, arm),
            f"no trial of {arm} with a learned loss has finished",
        )

    def importance(self) -> list[Axes]:
        """The share of each searched field in the variance of the search metric; one panel per arm."""
        spec, _, storage = self._study.loaded()
        return self._drawn(
            lambda: pictures.importance_bars(spec, importances_of(storage)), "no arm has enough finished trials"
        )

    def search_history(self) -> Axes:
        """The search metric of each trial in the order of proposal, and each arm's best so far."""
        spec, state, _ = self._study.loaded()
        return self._drawn(lambda: pictures.search_history(spec, state), "no trial has ended")[0]

    def parallel_coordinates(self, arm: str) -> Axes:
        """An arm's search: one line per trial through its values of the searched fields, coloured by the search metric."""
        spec, state, _ = self._study.loaded(arm)
        return self._drawn(
            lambda: pictures.parallel_coordinates(spec, state, arm), f"{arm} has fewer than two trials with a value"
        )[0]

    def _drawn(self, draw: Callable[[], Figure | None], lacking: str) -> list[Axes]:
        """The panels of a picture, without colour bars.

        Raises:
            StudyError: There is nothing to draw yet.
        """
        import matplotlib.pyplot as plt

        with drawn_by(plt.figure):
            figure = draw()
        if figure is None:
            raise StudyError(
                f"study {self._study.name!r}: {lacking}, so there is nothing to draw; run more of it first"
            )
        return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
