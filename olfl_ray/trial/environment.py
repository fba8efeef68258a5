"""Where a trial runs: its device and folders, and where it looks up learned losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from olfl_ray.losses import Losses, LossFiles

__all__ = ["TrialEnvironment"]


@dataclass(frozen=True, kw_only=True)
class TrialEnvironment:
    """Where a trial runs.

    Args:
        cache: Folder of prepared data sets.
        data_root: Folder of given data sets (`OLFL_DATA`); None: only bundled and downloaded ones.
        losses: The learned losses that `loss.from` may name.
        device: cpu, cuda, or cuda:N.
        data: Expected fingerprint of the data set; empty: any.
    """

    cache: Path
    data_root: Path | None = None
    losses: Losses = field(default_factory=LossFiles)
    device: str = "cpu"
    data: str = ""
