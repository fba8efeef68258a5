"""The one truth of a study: its events, in order, and the state that they replay to."""

from olfl_ray.ledger.commits import Commit, latest_commit, read_commit, trial_folder, write_commit
from olfl_ray.ledger.events import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Proposed,
    Stopped,
    StudyCreated,
)
from olfl_ray.ledger.log import Ledger
from olfl_ray.ledger.rules import apply
from olfl_ray.ledger.state import StudyState, TrialId, TrialState

__all__ = [
    "Began",
    "Commit",
    "Committed",
    "DriverStarted",
    "DriverStopped",
    "Ended",
    "Event",
    "Ledger",
    "Proposed",
    "Stopped",
    "StudyCreated",
    "StudyState",
    "TrialId",
    "TrialState",
    "apply",
    "latest_commit",
    "read_commit",
    "trial_folder",
    "write_commit",
]
