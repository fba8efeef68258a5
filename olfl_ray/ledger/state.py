"""The state of a study and its trials after the events so far."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from olfl_ray.errors import StudyError
from olfl_ray.ledger.events import Committed, DriverStarted, Examined

__all__ = ["STAGES", "StudyState", "TrialId", "TrialState"]

Stage = Literal["planned", "running", "stopped", "finished", "pruned", "diverged", "failed"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""What a trial's state can be."""

_NAME = re.compile(r"c?(0|[1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True, order=True)
class TrialId:
    """`online/3`, search trial 3 of the arm online, or `online/c3`, its fourth confirming trial.

    Confirming trials of an earlier winner keep their names; the numbering continues with those of a later one.

    Args:
        arm: The arm.
        name: Ordinal of a search trial, or `c` and the ordinal of a confirming one.

    Raises:
        StudyError: One of the two is malformed.
    """

    arm: str
    name: str

    def __post_init__(self) -> None:
        if not self.arm or "/" in self.arm or not _NAME.fullmatch(self.name):
            raise StudyError(f"trial {self}: give ARM/ORDINAL (online/3), or ARM/cN for a confirming one (online/c3)")

    def __str__(self) -> str:
        return f"{self.arm}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> TrialId:
        """The inverse of `str`. Raises `StudyError` for any other text."""
        arm, _, name = text.rpartition("/")
        return cls(arm, name)

    @property
    def confirming(self) -> bool:
        """Whether it confirms an arm's winner on a fresh seed, and so is not part of the search."""
        return self.name.startswith("c")

    @property
    def ordinal(self) -> int:
        """Index among the arm's search trials, or among its confirming ones; from 0."""
        return int(self.name.removeprefix("c"))


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """The state of one trial.

    Args:
        id: The trial.
        params: Its settings: dotted field of the spec -> value.
        seeds: Seed of each replicate.
        state: Its stage; finished, pruned, diverged and failed are final.
        attempt: Number of the latest attempt; 0 before the first.
        commits: Its commits, in order; their steps never decrease.
        step: Number of base steps of the result, or of the last commit; 0 before that.
        value: Search metric of the result, or of the last commit; None if there is none.
        metrics: One value per replicate for each metric of the result; empty before the end.
        cause: Why it failed or was cut short; None if it was not.
        proposed_at: When it was proposed, in seconds since 1970.
        began_at: When its first attempt started; None before.
        ended_at: When it ended; None before.
        scratch: Attempts up to this number are discarded; 0: none.
        alone: Whether it ran out of device memory, and so has its device to itself from then on.
        redone: Whether commits of it were dropped as corrupt, so that delivered steps are recomputed.
        retried: Whether it failed, was reopened, and has not ended since.
        filtered: Candidates that the searcher dropped before it proposed this trial, as in `Proposed`.
    """

    id: TrialId
    params: Mapping[str, Any]
    seeds: tuple[int, ...]
    state: Stage = "planned"
    attempt: int = 0
    commits: tuple[Committed, ...] = ()
    step: int = 0
    value: float | None = None
    metrics: Mapping[str, list[float]] = field(default_factory=dict)
    cause: str | None = None
    proposed_at: float
    began_at: float | None = None
    ended_at: float | None = None
    scratch: int = 0
    alone: bool = False
    redone: bool = False
    retried: bool = False
    filtered: tuple[Mapping[str, Any], ...] = ()

    @property
    def ended(self) -> bool:
        """Whether its result is final."""
        return self.ended_at is not None


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """The state of a study.

    Args:
        name: The study's name.
        digest: Digest of the settings that affect its results.
        spec: The resolved spec, as last revised.
        versions: Version of each library at its creation.
        created_at: When it was created, in seconds since 1970.
        identity: Unique to this study, even if another has the same spec and name.
        epoch: Lease of its latest driver; 0 before the first.
        driving: Whether its latest driver has not recorded that it stopped; it may still have been killed.
        trials: Trial by id (`str` of a `TrialId`), in the order of their proposal.
        facts: What was found of each arm's data, task and code before its first trial.
        drivers: Its drivers in the order of their start, with their machines.
    """

    name: str
    digest: str
    spec: Mapping[str, Any]
    versions: Mapping[str, str]
    created_at: float
    identity: str = ""
    epoch: int = 0
    driving: bool = False
    trials: Mapping[str, TrialState] = field(default_factory=dict)
    facts: Mapping[str, Examined] = field(default_factory=dict)
    drivers: tuple[DriverStarted, ...] = ()

    @property
    def failures(self) -> dict[str, list[str]]:
        """The failed trials by the first line of their cause; empty if none failed."""
        found: dict[str, list[str]] = {}
        for name, trial in self.trials.items():
            if trial.state == "failed":
                found.setdefault((trial.cause or "").partition("\n")[0].strip(), []).append(name)
        return found

    def search_trials(self, arm: str) -> list[TrialState]:
        """An arm's search trials by ordinal."""
        found = [trial for trial in self.trials.values() if trial.id.arm == arm and not trial.id.confirming]
        return sorted(found, key=lambda trial: trial.id.ordinal)

    def filtered(self, arm: str) -> dict[str, int]:
        """How many candidates of an arm's search each filter dropped."""
        return dict(Counter(str(one["filter"]) for trial in self.search_trials(arm) for one in trial.filtered))

    def best(self, arm: str, goal: str) -> TrialState | None:
        """An arm's winner: its best finished search trial; ties go to the earlier one.

        Args:
            arm: The arm.
            goal: minimize or maximize.
        """
        sign = 1 if goal == "minimize" else -1
        done = [trial for trial in self.search_trials(arm) if trial.state == "finished" and trial.value is not None]
        return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def confirming_trials(self, arm: str, goal: str) -> list[TrialState]:
        """The trials that confirm an arm's current winner, by ordinal; those of an earlier winner are left out."""
        best = self.best(arm, goal)
        found = [
            trial
            for trial in self.trials.values()
            if best is not None
            and trial.id.arm == arm
            and trial.id.confirming
            and best.params.items() <= trial.params.items()
        ]
        return sorted(found, key=lambda trial: trial.id.ordinal)
