"""The source of a learned loss: a file, or a study's trial named `STUDY/ARM/ORDINAL`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from olfl_ray.errors import DataError, StudyError
from olfl_ray.ledger import Commit, Ledger, TrialId, read_commit, read_file, restore_point, state_key
from olfl_ray.losses import LearnedLoss, loss_from_bytes, read_loss
from olfl_ray.spec import NAME
from olfl_ray.storage import Storage, open_folder, open_storage

__all__ = ["KeptLosses", "find_loss", "find_sequence"]


@dataclass(frozen=True, kw_only=True)
class KeptLosses:
    """The learned losses that `loss.from` may name: those in files, and those of studies' trials.

    Args:
        studies: Folder of the studies; None: only paths.
        beside: URL of a folder of studies that is searched first; empty: none.
    """

    studies: Path | None
    beside: str = ""

    def loss(self, source: str, allow: Iterable[str]) -> LearnedLoss:
        """As `find_loss`."""
        return find_loss(source, self.studies, self.beside, allow)

    def sequence(self, source: str, allow: Iterable[str]) -> list[tuple[int, LearnedLoss]]:
        """As `find_sequence`."""
        return find_sequence(source, self.studies, self.beside, allow)


def find_loss(source: str, studies: Path | None, beside: str = "", allow: Iterable[str] = ()) -> LearnedLoss:
    """The learned loss of a file, a folder or a finished trial; of a trial's replicates, the first one's.

    Args:
        source: A path that exists, else `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies; None: only paths are looked up.
        beside: URL of a folder of studies that is searched first; empty: none.
        allow: Builders that may be called, as for `olfl_ray.losses.loss_from_bytes`.

    Raises:
        DataError: There is none.
    """
    if Path(source).exists() or studies is None or source.count("/") != 2:
        return read_loss(source, allow)
    storage, chain = _finished(source, studies, beside)
    found = _loss_of(storage, chain[-1], source, allow)
    if found is None:
        raise DataError(
            f"{source!r}: that trial saved no learned loss; name a finished trial of an online or offline arm"
        )
    return found


def find_sequence(
    source: str, studies: Path | None, beside: str = "", allow: Iterable[str] = ()
) -> list[tuple[int, LearnedLoss]]:
    """The learned losses in a finished trial's commits, each with its number of base steps.

    The first is that of step 0, if the trial initialized it.

    Args:
        source: `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies.
        beside: URL of a folder of studies that is searched first; empty: none.
        allow: Builders that may be called, as for `olfl_ray.losses.loss_from_bytes`.

    Raises:
        DataError: There are none.
    """
    if studies is None or source.count("/") != 2:
        raise DataError(f"{source!r} is not a trial, and a file has only one loss; name STUDY/ARM/ORDINAL")
    storage, chain = _finished(source, studies, beside)
    losses = [(commit.step, _loss_of(storage, commit, source, allow)) for commit in chain]
    found = [(step, loss) for step, loss in losses if loss is not None]
    if not found:
        raise DataError(
            f"{source!r}: that trial saved no learned loss; name a finished trial of an online or offline arm"
        )
    return found


def _finished(source: str, studies: Path, beside: str) -> tuple[Storage, tuple[Commit, ...]]:
    """A finished trial's storage and its commits."""
    study, _, name = source.partition("/")
    try:
        trial = str(TrialId.parse(name))
    except StudyError as error:
        raise DataError(f"{source!r} is neither a path nor STUDY/ARM/ORDINAL ({error})") from None
    storage = _storage_of(study, studies, beside)
    if storage is None:
        there = ", ".join(_names(studies)) or "none yet"
        also = f"nor in {beside}, " if beside else ""
        raise DataError(f"{source!r}: neither a path, {also}nor a trial here; the studies in {studies} are: {there}")
    chain = restore_point(storage, trial).chain
    if not chain or chain[-1].outcome != "finished":
        _refuse_corrupt(storage, trial)
    if not chain:
        raise DataError(f"{source!r}: study {study!r} has no trial {trial!r} with results; see its report")
    if chain[-1].outcome != "finished":
        raise DataError(f"{source!r}: that trial has not finished; name one that has, of an online or offline arm")
    return storage, chain


def _refuse_corrupt(storage: Storage, trial: str) -> None:
    """Refuse a trial whose last commits are corrupt: what is left of it looks like an earlier result.

    Raises:
        DataError: A file of a commit in the ledger is missing or corrupt.
    """
    state = Ledger.load(storage).state.trials.get(trial)
    commits = [read_commit(storage, commit.commit) for commit in state.commits] if state is not None else []
    for commit in commits:
        for file in commit.files:
            if commit is commits[-1] or file != state_key(commit):  # of the states, only the last is stored
                read_file(storage, commit, file)


def _loss_of(storage: Storage, commit: Commit, source: str, allow: Iterable[str]) -> LearnedLoss | None:
    weights, settings = (read_file(storage, commit, f".learned_loss.{suffix}") for suffix in ("safetensors", "json"))
    return None if weights is None or settings is None else loss_from_bytes(weights, settings, source, allow)


def _storage_of(study: str, studies: Path, beside: str) -> Storage | None:
    """The storage of a study: next to the study that names it, else in the home folder."""
    if not re.fullmatch(NAME, study, re.ASCII):
        return None
    if beside and (storage := open_storage(f"{beside}/{study}")).keys("ledger/"):
        return storage
    return open_folder(studies / study) if study in _names(studies) else None


def _names(studies: Path) -> list[str]:
    return sorted(entry.name for entry in studies.iterdir() if entry.is_dir()) if studies.is_dir() else []
