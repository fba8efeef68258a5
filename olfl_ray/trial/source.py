"""Where a learned loss comes from: files of its own, or a sweep's trial named `STUDY/ARM/ORDINAL`."""

from __future__ import annotations

from pathlib import Path

from olfl_ray.errors import DataError, StudyError
from olfl_ray.ledger import Commit, TrialId, read_file, restore_point
from olfl_ray.losses import LearnedLoss, loss_from_bytes, read_loss
from olfl_ray.storage import Storage, open_folder

__all__ = ["find_loss", "find_sequence"]


def find_loss(source: str, studies: Path | None) -> LearnedLoss:
    """The learned loss of a file, a folder or a finished trial; of a trial's replicates, the first one's.

    Args:
        source: A path that exists, else `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies; None: only paths are looked up.

    Raises:
        DataError: There is none.
    """
    if Path(source).exists() or studies is None or source.count("/") != 2:
        return read_loss(source)
    storage, chain = _finished(source, studies)
    found = _loss_of(storage, chain[-1], source)
    if found is None:
        raise DataError(
            f"{source!r}: that trial left no learned loss; name a finished trial of an online or offline arm"
        )
    return found


def find_sequence(source: str, studies: Path | None) -> list[tuple[int, LearnedLoss]]:
    """The learned losses that a finished trial's commits recorded, each after its number of base steps.

    Args:
        source: `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies.

    Raises:
        DataError: There are none.
    """
    if studies is None or source.count("/") != 2:
        raise DataError(f"{source!r} is no trial, and a file has one loss alone; name STUDY/ARM/ORDINAL")
    storage, chain = _finished(source, studies)
    losses = [(commit.step, _loss_of(storage, commit, source)) for commit in chain]
    found = [(step, loss) for step, loss in losses if loss is not None]
    if not found:
        raise DataError(
            f"{source!r}: that trial left no learned loss; name a finished trial of an online or offline arm"
        )
    return found


def _finished(source: str, studies: Path) -> tuple[Storage, tuple[Commit, ...]]:
    """A finished trial's storage and its commits."""
    study, _, name = source.partition("/")
    try:
        trial = str(TrialId.parse(name))
    except StudyError as error:
        raise DataError(f"{source!r} is neither a path nor STUDY/ARM/ORDINAL ({error})") from None
    if study not in _names(studies):
        there = ", ".join(_names(studies)) or "none yet"
        raise DataError(f"{source!r}: neither a path nor a trial here; the studies in {studies} are: {there}")
    storage = open_folder(studies / study)
    chain = restore_point(storage, trial).chain
    if not chain:
        raise DataError(f"{source!r}: study {study!r} has no trial {trial!r} with results; see its report")
    if chain[-1].outcome != "finished":
        raise DataError(f"{source!r}: that trial has not finished; name one that has, of an online or offline arm")
    return storage, chain


def _loss_of(storage: Storage, commit: Commit, source: str) -> LearnedLoss | None:
    weights, settings = (read_file(storage, commit, f".learned_loss.{suffix}") for suffix in ("safetensors", "json"))
    return None if weights is None or settings is None else loss_from_bytes(weights, settings, source)


def _names(studies: Path) -> list[str]:
    return sorted(entry.name for entry in studies.iterdir() if entry.is_dir()) if studies.is_dir() else []
