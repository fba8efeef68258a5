"""Where a learned loss comes from: files of its own, or a sweep's trial named `STUDY/ARM/ORDINAL`."""

from __future__ import annotations

from pathlib import Path

from olfl_ray.errors import DataError, StudyError
from olfl_ray.ledger import TrialId, read_file, restore_point
from olfl_ray.losses import LearnedLoss, loss_from_bytes, read_loss
from olfl_ray.storage import open_folder

__all__ = ["find_loss"]


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
    weights, settings = (read_file(storage, chain[-1], f".learned_loss.{suffix}") for suffix in ("safetensors", "json"))
    if weights is None or settings is None or chain[-1].outcome != "finished":
        raise DataError(
            f"{source!r}: that trial left no learned loss; name a finished trial of an online or offline arm"
        )
    return loss_from_bytes(weights, settings, source)


def _names(studies: Path) -> list[str]:
    return sorted(entry.name for entry in studies.iterdir() if entry.is_dir()) if studies.is_dir() else []
