"""Where the learned losses lie that `loss.from` names: in files, or wherever else a caller keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from olfl_ray.errors import DataError
from olfl_ray.losses.files import read_loss
from olfl_ray.losses.learned_loss import LearnedLoss

__all__ = ["LossFiles", "Losses"]


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
