"""Studies on a cluster: submit, follow, resume, extend, retry, stop, list; the remote counterpart of `olfl_ray.study`."""

from olfl_ray.remote.clusters import RayCluster, Unseen, locate
from olfl_ray.remote.follow import Standing, came_to_its_end, counted, follow, list_on, logs, outcome, stop_on
from olfl_ray.remote.submit import (
    Code,
    Submission,
    accepted,
    extend_on,
    last_words,
    resume_on,
    retry_on,
    spec_on,
    submit,
)

__all__ = [
    "Code",
    "RayCluster",
    "Standing",
    "Submission",
    "Unseen",
    "accepted",
    "came_to_its_end",
    "counted",
    "extend_on",
    "follow",
    "last_words",
    "list_on",
    "locate",
    "logs",
    "outcome",
    "resume_on",
    "retry_on",
    "spec_on",
    "stop_on",
    "submit",
]
