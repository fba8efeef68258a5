"""The single source of truth of a study: its events, in order, and the state that results from replaying them."""

from olfl_ray.ledger.commits import (
    Commit,
    RestorePoint,
    latest_attempt,
    left_by_learnable,
    read_commit,
    read_file,
    restore_point,
    state_key,
    trial_folder,
    write_commit,
)
from olfl_ray.ledger.events import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Examined,
    Proposed,
    Reopened,
    Revised,
    Stopped,
    StudyCreated,
)
from olfl_ray.ledger.log import Ledger
from olfl_ray.ledger.rules import apply
from olfl_ray.ledger.state import STAGES, StudyState, TrialId, TrialState
from olfl_ray.ledger.stop import StopRequest

__all__ = [
    "STAGES",
    "Began",
    "Commit",
    "Committed",
    "DriverStarted",
    "DriverStopped",
    "Ended",
    "Event",
    "Examined",
    "Ledger",
    "Proposed",
    "Reopened",
    "RestorePoint",
    "Revised",
    "StopRequest",
    "Stopped",
    "StudyCreated",
    "StudyState",
    "TrialId",
    "TrialState",
    "apply",
    "latest_attempt",
    "left_by_learnable",
    "read_commit",
    "read_file",
    "restore_point",
    "state_key",
    "trial_folder",
    "write_commit",
]
