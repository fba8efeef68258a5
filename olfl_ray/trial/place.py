"""Where a trial runs: its device and folders, and where it finds learned losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from olfl_ray.errors import DataError
from olfl_ray.losses import LearnedLoss, read_loss

__all__ = ["Place"]


class Losses(Protocol):
    """The learned losses that `loss.from` may name."""

    def loss(self, source: str, allow: Iterable[str]) -> LearnedLoss:
        """The one of a name; `allow` as for `olfl_ray.losses.loss_from_bytes`.

        Raises:
            DataError: There is none.
        """

    def sequence(self, source: str, allow: Iterable[str]) -> list[tuple[int, LearnedLoss]]:
        """Those that a trial recorded, each after its number of base steps.

        Raises:
            DataError: There are none.
        """


class LossFiles:
    """Those in files."""

    def loss(self, source: str, allow: Iterable[str]) -> LearnedLoss:
        """The one in a file or folder."""
        return read_loss(source, allow)

    def sequence(self, source: str, allow: Iterable[str]) -> list[tuple[int, LearnedLoss]]:
        """A file has only one."""
        raise DataError(f"{source!r} is not a trial, and a file has only one loss; name STUDY/ARM/ORDINAL")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a trial runs.

    Args:
        cache: Folder of prepared data sets.
        data_root: Folder of given data sets (`OLFL_DATA`); None: only bundled and downloaded ones.
        losses: The learned losses that `loss.from` may name.
        device: cpu, cuda, or cuda:N.
        data: Fingerprint that the data set must have; empty: any.
    """

    cache: Path
    data_root: Path | None = None
    losses: Losses = field(default_factory=LossFiles)
    device: str = "cpu"
    data: str = ""
