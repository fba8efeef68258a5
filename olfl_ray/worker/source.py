"""The source of a learned loss: a file, or a study's trial named `STUDY/ARM/ORDINAL`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from olfl_ray.errors import DataError, StudyError
from olfl_ray.ledger import Commit, Ledger, RestorePoint, TrialId, read_commit, read_file, restore_point, state_key
from olfl_ray.losses import LearnedLoss, loss_from_bytes, read_loss
from olfl_ray.spec import NAME
from olfl_ray.storage import Storage, open_folder, open_storage

__all__ = ["KeptLosses", "find_loss", "find_sequence", "finished_chain", "loss_at", "losses_until"]


@dataclass(frozen=True, kw_only=True)
class KeptLosses:
    """The learned losses that `loss.from` may name: those in files, and those of studies' trials.

    Args:
        studies: Folder of the studies; None: only paths.
        studies_url: URL of a folder of studies that is searched first; empty: none.
    """

    studies: Path | None
    studies_url: str = ""

    def loss(self, source: str, allow: Iterable[str]) -> LearnedLoss:
        """As `find_loss`."""
        return find_loss(source, self.studies, self.studies_url, allow)

    def sequence(self, source: str, allow: Iterable[str]) -> list[tuple[int, LearnedLoss]]:
        """As `find_sequence`."""
        return find_sequence(source, self.studies, self.studies_url, allow)


def find_loss(source: str, studies: Path | None, studies_url: str = "", allow: Iterable[str] = ()) -> LearnedLoss:
    """The learned loss of a file, a folder or a finished trial; of a trial's replicates, the first one's.

    Args:
        source: A path that exists, else `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies; None: only paths are looked up.
        studies_url: URL of a folder of studies that is searched first; empty: none.
        allow: Builders that may be called, as for `olfl_ray.losses.loss_from_bytes`.

    Raises:
        DataError: There is none.
    """
    if Path(source).exists() or studies is None:
        return read_loss(source, allow)
    if source.count("/") != 2:
        raise DataError(
            f"{source!r}: there is no such file or folder, and it is not STUDY/ARM/ORDINAL; name a trial, such as "
            "digits/online/c0, or the folder of a learned loss"
        )
    storage, chain = _finished(source, studies, studies_url)
    found = _loss_of(storage, chain[-1], source, allow)
    if found is None:
        raise _saved_none(source)
    return found


def find_sequence(
    source: str, studies: Path | None, studies_url: str = "", allow: Iterable[str] = ()
) -> list[tuple[int, LearnedLoss]]:
    """The learned losses in a finished trial's commits, each with its number of base steps.

    The first is that of step 0, if the trial initialized it.

    Args:
        source: `STUDY/ARM/ORDINAL`.
        studies: Folder of the studies.
        studies_url: URL of a folder of studies that is searched first; empty: none.
        allow: Builders that may be called, as for `olfl_ray.losses.loss_from_bytes`.

    Raises:
        DataError: There are none.
    """
    if studies is None or source.count("/") != 2:
        raise DataError(f"{source!r} is not a trial, and a file has only one loss; name STUDY/ARM/ORDINAL")
    storage, chain = _finished(source, studies, studies_url)
    losses = [(commit.step, _loss_of(storage, commit, source, allow)) for commit in chain]
    found = [(step, loss) for step, loss in losses if loss is not None]
    if not found:
        raise _saved_none(source)
    return found


def _finished(source: str, studies: Path, studies_url: str) -> tuple[Storage, tuple[Commit, ...]]:
    """A finished trial's storage and its commits."""
    study, _, name = source.partition("/")
    try:
        trial = str(TrialId.parse(name))
    except StudyError as error:
        raise DataError(f"{source!r} is neither a path nor STUDY/ARM/ORDINAL ({error})") from None
    storage = _storage_of(study, studies, studies_url)
    if storage is None:
        there = ", ".join(_names(studies)) or "none yet"
        also = f"nor in {studies_url}, " if studies_url else ""
        raise DataError(f"{source!r}: neither a path, {also}nor a trial here; the studies in {studies} are: {there}")
    return storage, finished_chain(storage, trial, source).chain


def finished_chain(storage: Storage, trial: str, source: str) -> RestorePoint:
    """The commits of a finished trial, and its last state.

    Args:
        storage: The study's storage.
        trial: `arm/name`.
        source: Names it in an error.

    Raises:
        DataError: It has not finished, or a file of it is corrupt.
    """
    point = restore_point(storage, trial)
    chain, study = point.chain, source.partition("/")[0]
    if not chain or chain[-1].outcome != "finished":
        _refuse_corrupt(storage, trial)
    if not chain:
        raise DataError(f"{source!r}: study {study!r} has no trial {trial!r} with results; see its report")
    if chain[-1].outcome != "finished":
        raise DataError(f"{source!r}: that trial has not finished; name one that has, of an online or offline arm")
    return point


def loss_at(storage: Storage, trial: str, source: str, at: float, allow: Iterable[str] = ()) -> LearnedLoss:
    """The learned loss that a finished trial trained on at one moment: the last that a commit recorded until then.

    Args:
        storage: The study's storage.
        trial: `arm/name`.
        source: Names it in an error.
        at: An integer is a base step; else a fraction of the training, from 0.0 to 1.0.
        allow: Builders that may be called, as for `olfl_ray.losses.loss_from_bytes`.

    Raises:
        DataError: There is none, or `at` is no moment of the training.
    """
    return _read(storage, _recorded_until(storage, trial, source, at)[-1:], source, allow)[0][1]


def losses_until(
    storage: Storage, trial: str, source: str, at: float, allow: Iterable[str] = ()
) -> list[tuple[int, LearnedLoss]]:
    """The learned losses that a finished trial's commits recorded until one moment, each with its base step.

    Args:
        storage: As of `loss_at`.
        trial: As of `loss_at`.
        source: As of `loss_at`.
        at: As of `loss_at`.
        allow: As of `loss_at`.

    Raises:
        DataError: As of `loss_at`.
    """
    return _read(storage, _recorded_until(storage, trial, source, at), source, allow)


def _recorded_until(storage: Storage, trial: str, source: str, at: float) -> list[Commit]:
    chain = finished_chain(storage, trial, source).chain
    last = chain[-1].step
    if isinstance(at, bool) or not 0 <= at <= (last if isinstance(at, int) else 1):
        raise DataError(
            f"at: must be a base step, an integer from 0 to {last}, or a fraction of the training, 0.0 to 1.0, but it is {at!r}"
        )
    step = at if isinstance(at, int) else at * last
    recorded = [commit for commit in chain if commit.file(".learned_loss.json") is not None]
    until = [commit for commit in recorded if commit.step <= step]
    if recorded and not until:
        raise DataError(
            f"at: {at!r} is before the first recorded learned loss, of step {recorded[0].step}; give a later one"
        )
    if not until:
        raise _saved_none(source)
    return until


def _read(
    storage: Storage, commits: Iterable[Commit], source: str, allow: Iterable[str]
) -> list[tuple[int, LearnedLoss]]:
    allow, found = list(allow), []
    for commit in commits:
        loss = _loss_of(storage, commit, source, allow)
        if loss is None:
            raise _saved_none(source)
        found.append((commit.step, loss))
    return found


def _saved_none(source: str) -> DataError:
    return DataError(f"{source!r}: that trial saved no learned loss; name a finished trial of an online or offline arm")


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


def _storage_of(study: str, studies: Path, studies_url: str) -> Storage | None:
    """The storage of a study: next to the study that names it, else in the home folder."""
    if not re.fullmatch(NAME, study, re.ASCII):
        return None
    if studies_url and (storage := open_storage(f"{studies_url}/{study}")).keys("ledger/"):
        return storage
    return open_folder(studies / study) if study in _names(studies) else None


def _names(studies: Path) -> list[str]:
    return sorted(entry.name for entry in studies.iterdir() if entry.is_dir()) if studies.is_dir() else []
