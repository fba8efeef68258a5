"""A record: a trial's measurements at one step, one value per replicate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Record", "Surface"]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A learned loss on a grid of (output, target), next to the task loss on the same grid.

    Args:
        step: Number of base steps done at that moment.
        replicate: Index of the replicate.
        target: Grid coordinate, one value per point: one-hot target (classification) or scaled target (regression).
        output: Grid coordinate, one value per point: probability (classification) or scaled output (regression).
        learned: l_phi at each point.
        task: The task loss, output by output, at each point.
    """

    step: int
    replicate: int
    target: tuple[float, ...]
    output: tuple[float, ...]
    learned: tuple[float, ...]
    task: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluation of a trial.

    Args:
        step: Number of base steps done; for `init/...` metrics, of initialization steps.
        time_ms: Wall-clock time of the evaluation, in milliseconds since 1970. It is stored and never recomputed, so that
            sending a record to MLflow twice is harmless.
        metrics: For each metric name (`names.METRICS`) one value per replicate, in the replicates' order.
        surfaces: The learned loss on a grid, at some steps of training.
    """

    step: int
    time_ms: int
    metrics: Mapping[str, tuple[float, ...]]
    surfaces: tuple[Surface, ...] = field(default=())

    def mean(self, metric: str) -> float:
        """Mean over replicates of one metric."""
        values = self.metrics[metric]
        return sum(values) / len(values)
