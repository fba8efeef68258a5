"""A tracker: where a study's records go. It receives what the ledger has, possibly more than once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olfl_ray.errors import DataError
from olfl_ray.ledger import StudyState, TrialState, read_commit, read_file
from olfl_ray.records import RECORDS, from_parquet
from olfl_ray.spec import Strict, StudySpec, TrialConfig, trial_config
from olfl_ray.storage import Storage

__all__ = ["DatasetNote", "TrackedStudy", "Tracker"]

DatasetNote = Mapping[str, Any]
"""An arm's data set: name, digest (36 characters at most), source, size, names of classes."""


@dataclass(frozen=True, kw_only=True)
class TrackedStudy:
    """The study whose records a tracker takes.

    Args:
        spec: The study.
        storage: Its storage.
        home: The home folder.
        git_commit: Commit of the working folder, or empty.
        datasets: Each arm's data set.
    """

    spec: StudySpec
    storage: Storage
    home: Path
    git_commit: str = ""
    datasets: Mapping[str, DatasetNote] = field(default_factory=dict)

    def config(self, trial: TrialState) -> TrialConfig:
        """A trial's settings."""
        seeds, confirming = tuple(trial.seeds), trial.id.confirming
        return trial_config(self.spec, trial.id.arm, trial.params, seeds=seeds, confirming=confirming)

    def records(self, commit: str) -> Iterator[dict[str, Any]]:
        """The records of a commit: step, metric, replicate, value and time_ms of each. What is corrupt stays out.

        Args:
            commit: Its key, as in `trial.commits`.
        """
        try:
            data = read_file(self.storage, read_commit(self.storage, commit), ".records.parquet")
            table = None if data is None else from_parquet(data, RECORDS)
        except DataError:
            return  # the analysis names it
        yield from table.to_pylist() if table is not None else ()


class Tracker(ABC):
    """Keeps a study's records somewhere. A subclass is one file.

    A study makes one at each start and calls `check` and, at its very first start, `prepare`, before anything is recorded. Then a
    thread calls `open`, `deliver` for each trial whose state has changed, and `close`; a call that raises is repeated
    later. A driver may be killed between any two calls or within one: the next driver opens the tracker again and delivers
    each trial again. Delivery is idempotent: whatever is repeated, the tracker then has each record once.

    Args:
        config: The settings next to its name in `tracking`.
        study: The study.
    """

    class Config(Strict):
        """Its settings. A subclass that has some replaces this class."""

    config: Any
    name: str = ""
    """As the spec names it, for messages."""

    def __init__(self, config: Any, study: TrackedStudy) -> None:
        self.config, self.study = config, study

    @classmethod
    def resolve(cls, config: Any, before: Any | None = None) -> Any:
        """The settings as the ledger keeps them, with nothing that depends on the current folder.

        Args:
            config: What the spec gives.
            before: What the ledger has, where the study was begun before.

        Raises:
            StudyError: A relative path means another place than before.
        """
        return config

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the records are, for people; without passwords."""

    def confined(self) -> str:
        """Why the records would be lost with this machine, and what to set instead; empty: they would not be."""
        return ""

    @abstractmethod
    def check(self) -> None:
        """See that records can be kept; make nothing.

        Raises:
            UserError: They can't; it names the setting and the next move.
        """

    def prepare(self) -> None:
        """Make what is missing, before a study's first trial; by default `check` is all.

        Raises:
            UserError: It can't be made.
        """
        self.check()

    @abstractmethod
    def open(self, identity: str) -> None:
        """Begin to take records; what earlier drivers delivered is kept.

        Args:
            identity: The study's own: two studies of one name differ in it, and must not mix.

        Raises:
            Exception: The store can't be reached; it is called again later.
        """

    @abstractmethod
    def deliver(self, trial: TrialState) -> None:
        """Bring what is kept of a trial up to date with its state: settings, records so far, and its end.

        Args:
            trial: Its current state.

        Raises:
            Exception: The store can't be reached, or refuses; it is called again later.
        """

    def close(self, files: Mapping[str, Path], *, status: str) -> None:  # noqa: B027  (optional)
        """Take a driver's end.

        Args:
            files: Folders of files of the complete study, by name: `report`.
            status: FINISHED, FAILED (no trial finished) or KILLED (the study resumes later).
        """

    @abstractmethod
    def undelivered(self, state: StudyState) -> int:
        """How many trials of a finished study are not kept, or in part; a record of the study itself counts as one.

        Raises:
            SetupError: The store does not answer.
        """
