"""A study's runs in a tracking store: found by the study's identity; only the store tells what has been delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.tracking.mlflow.store import asking, is_absent
from olfl_ray.tracking.sink import parent_status

__all__ = [
    "IDENTITY_TAG",
    "PARENT",
    "STATUS",
    "STORAGE_TAG",
    "STUDY_TAG",
    "TRIAL_TAG",
    "found",
    "remove_runs",
    "shows",
    "storage_of_runs",
    "undelivered",
]

PAGE = 1000
"""Runs per page of a search."""
STATUS = {"finished": "FINISHED", "pruned": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}
STUDY_TAG, IDENTITY_TAG, TRIAL_TAG, STORAGE_TAG = "olfl.study", "olfl.identity", "olfl.trial", "olfl.storage"
PARENT = "study"
"""Name of the parent run; no trial has this name."""


def found(client: Any, experiment: str, identity: str, name: str = "") -> Iterator[Any]:
    """The runs of a study in an experiment, the earliest first.

    Args:
        client: MLflow's client.
        experiment: Id of the experiment.
        identity: The study's identity.
        name: A trial's name or the parent's; empty: all of them.
    """
    query = f"tags.`{IDENTITY_TAG}` = '{identity}'" + (f" and tags.`{TRIAL_TAG}` = '{name}'" if name else "")
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], query, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    yield from sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def shows(run: Any, trial: TrialState) -> bool:
    """Whether a run is complete for an ended trial: its status and end time are written last."""
    if trial.ended_at is None:
        return False
    return (run.info.status, run.info.end_time) == (STATUS[trial.state], int(trial.ended_at * 1000))


def storage_of_runs(uri: str, experiment: str, identity: str) -> str:
    """Location of the studies among which the driver that wrote a study's runs last kept it; empty: there are none.

    Args:
        uri: Tracking URI; an SQLite file that does not exist has none.
        experiment: Name of the experiment.
        identity: The study's identity.

    Raises:
        SetupError: The store does not respond.
    """
    if is_absent(uri):
        return ""
    with asking(uri) as client:
        there = client.get_experiment_by_name(experiment)
        runs = [] if there is None else list(found(client, there.experiment_id, identity, PARENT))
    return str(runs[-1].data.tags.get(STORAGE_TAG, "")) if runs else ""


def remove_runs(uri: str, experiment: str, identity: str) -> int:
    """Delete a study's runs in a store, as MLflow does: they can be restored until `mlflow gc`.

    Args:
        uri: Tracking URI; an SQLite file that does not exist has none.
        experiment: Name of the experiment.
        identity: The study's identity; runs without it are not touched.

    Returns:
        Number of runs deleted.

    Raises:
        SetupError: The store does not respond.
    """
    if is_absent(uri):
        return 0
    with asking(uri) as client:
        there = client.get_experiment_by_name(experiment)
        runs = [] if there is None else list(found(client, there.experiment_id, identity))
        for run in reversed(runs):  # the study's own run was the first; while it is there, its trials can be found
            client.delete_run(run.info.run_id)
    return len(runs)


def undelivered(uri: str, experiment: str, state: StudyState) -> int:
    """Number of runs of a finished study that a store lacks, or has incomplete; the parent run counts.

    Args:
        uri: Tracking URI.
        experiment: Name of the experiment.
        state: The study.

    Raises:
        SetupError: The store does not respond.
    """
    missing = len(state.trials) + 1
    if is_absent(uri):
        return missing
    with asking(uri) as client:
        there = client.get_experiment_by_name(experiment)
        runs = [] if there is None else list(found(client, there.experiment_id, state.identity))
    by_name: dict[str, list[Any]] = {}
    for run in runs:
        by_name.setdefault(run.data.tags[TRIAL_TAG], []).append(run)
    for name, same in by_name.items():
        if len(same) > 1:
            continue  # a duplicate, to be removed
        if name == PARENT:
            missing -= same[0].info.status == parent_status(state)
        elif name in state.trials:
            missing -= shows(same[0], state.trials[name])
    return missing
