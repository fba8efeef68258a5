"""A tracker: where a study's records are sent. It receives the ledger's state, possibly more than once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olfl_ray.errors import DataError
from olfl_ray.ledger import StudyState, TrialState, read_commit, read_file
from olfl_ray.records import RECORDS, from_parquet
from olfl_ray.spec import Strict, StudySpec, TrialConfig, trial_config
from olfl_ray.storage import Storage

if TYPE_CHECKING:
    from olfl_ray.trial import TrainedModel

__all__ = ["DatasetNote", "TrackedArm", "TrackedStudy", "Tracker"]

DatasetNote = Mapping[str, Any]
"""An arm's data set: name, digest (at most 36 characters), source, size, class names."""


@dataclass(frozen=True, kw_only=True)
class TrackedStudy:
    """The study that a tracker records.

    Args:
        spec: The study.
        storage: Its storage.
        home: The home folder.
        git_commit: Commit of the current folder's repository, or empty.
        datasets: Each arm's data set.
        model: From a finished trial to the base learner that it trained; None: there is none. It calls builders and reads the
            data set, so it may raise anything.
    """

    spec: StudySpec
    storage: Storage
    home: Path
    git_commit: str = ""
    datasets: Mapping[str, DatasetNote] = field(default_factory=dict)
    model: Callable[[TrialState], TrainedModel] | None = None

    def config(self, trial: TrialState) -> TrialConfig:
        """A trial's settings."""
        seeds, confirming = tuple(trial.seeds), trial.id.confirming
        return trial_config(self.spec, trial.id.arm, trial.params, seeds=seeds, confirming=confirming)

    def records(self, commit: str) -> Iterator[dict[str, Any]]:
        """The records of a commit: step, metric, replicate, value and time_ms of each. Corrupt ones are skipped.

        Args:
            commit: Key of the commit, as in `trial.commits`.
        """
        try:
            data = read_file(self.storage, read_commit(self.storage, commit), ".records.parquet")
            table = None if data is None else from_parquet(data, RECORDS)
        except DataError:
            return  # the analysis reports it
        yield from table.to_pylist() if table is not None else ()


@dataclass(frozen=True, kw_only=True)
class TrackedArm:
    """An arm's outcome so far.

    Args:
        arm: The arm.
        ended: Number of its trials that have ended.
        best: Its winner, the best finished search trial; None before one has finished.
        settings: The winner's settings: dotted field -> value.
        metrics: What is known of the winner: `selection_error`, and on fresh seeds `test_error` (mean), `test_error_sd`, `n`, and
            against the baseline `difference`, `difference_low`, `difference_high`, `p`; for the metric error.
    """

    arm: str
    ended: int
    best: str | None
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]


class Tracker(ABC):
    """Stores a study's records. A subclass is one file.

    Each start of a study creates one and calls `check` and, at the very first start, `prepare`, before anything is recorded. Then
    a thread calls `open`, `deliver` for each trial whose state has changed, and `close`; a call that raises is repeated
    later. A driver may be killed between any two calls or during one: the next driver opens the tracker again and delivers
    each trial again. Delivery is idempotent: whatever is repeated, the tracker has each record once.

    Args:
        config: The settings next to its name in `tracking`.
        study: The study.
    """

    class Config(Strict):
        """Its settings; a subclass with settings overrides this class."""

    config: Any
    name: str = ""
    """Its name in the spec, for messages."""

    def __init__(self, config: Any, study: TrackedStudy) -> None:
        self.config, self.study = config, study

    @classmethod
    def resolve(cls, config: Any, before: Any | None = None) -> Any:
        """The settings as stored in the ledger, independent of the current folder.

        Args:
            config: The settings in the spec.
            before: The settings in the ledger, if the study exists already.

        Raises:
            StudyError: A relative path refers to another location than before.
        """
        return config

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the records are, for people; without passwords."""

    def confined(self) -> str:
        """Why the records would be lost with this machine, and what to set instead; empty if they would not be."""
        return ""

    @abstractmethod
    def check(self) -> None:
        """Check that records can be stored; create nothing.

        Raises:
            UserError: They can't be; the message names the setting and the next move.
        """

    def prepare(self) -> None:
        """Create what is missing, before a study's first trial; by default only `check`.

        Raises:
            UserError: It can't be created.
        """
        self.check()

    @abstractmethod
    def open(self, identity: str) -> None:
        """Start to receive records; what earlier drivers delivered is kept.

        Args:
            identity: The study's identity: it differs between two studies of the same name, which must not be mixed.

        Raises:
            Exception: The store can't be reached; it is called again later.
        """

    @abstractmethod
    def deliver(self, trial: TrialState) -> None:
        """Update the stored trial to its state: settings, records so far, and its end.

        Args:
            trial: Its current state.

        Raises:
            Exception: The store can't be reached, or refuses; it is called again later.
        """

    def summarise(self, arms: Sequence[TrackedArm]) -> None:  # noqa: B027  (optional)
        """Record each arm's outcome, before `close`; it may be called again with other values: a study can be extended.

        Args:
            arms: The arms.
        """

    def links(self) -> Mapping[str, str]:
        """Where the record of each trial is, and under `study` the study's own: a URL, or an id. It is open; by default empty."""
        return {}

    def close(self, files: Mapping[str, Path], *, status: str) -> None:  # noqa: B027  (optional)
        """Record that the driver ends.

        Args:
            files: Folders with files of the complete study, by name: `report`.
            status: FINISHED, FAILED (no trial finished) or KILLED (the study resumes later).
        """

    def remove(self, identity: str) -> int:
        """Delete the records of a study that is deleted; by default they stay. A call that was interrupted is repeated.

        Args:
            identity: The study's identity: nothing of another study is touched.

        Returns:
            Number of records deleted: runs, or files.

        Raises:
            UserError: The store does not respond.
        """
        return 0

    def kept_in(self, identity: str) -> set[str]:
        """Locations of studies in which, by its records, this study is kept; by default unknown.

        Args:
            identity: The study's identity.

        Raises:
            UserError: The store does not respond.
        """
        return set()

    @abstractmethod
    def undelivered(self, state: StudyState) -> int:
        """Number of trials of a finished study that are missing or incomplete; the record of the study itself counts as one.

        Raises:
            SetupError: The store does not respond.
        """
