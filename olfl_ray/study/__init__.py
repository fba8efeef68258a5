"""The public functions: run, resume, extend, retry, stop, status, report; the same on a cluster; what goes with them."""

from olfl_ray.study.check import check_study
from olfl_ray.study.clusters import RayCluster, Unseen, locate
from olfl_ray.study.datasets import dataset_lines, dataset_notes, describe_data, prepare_data
from olfl_ray.study.follow import Standing, came_to_its_end, follow, is_driven, list_on, logs, outcome, stop_on
from olfl_ray.study.home import Home
from olfl_ray.study.look import STARTED, data_of, report, sample, spec_of, status, stop, trials_of
from olfl_ray.study.loss import load_loss
from olfl_ray.study.run import StudyResult, extend, resume, retry, run
from olfl_ray.study.single import run_trial, trial_of
from olfl_ray.study.submit import (
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
from olfl_ray.study.ui import serve_ui

__all__ = [
    "STARTED",
    "Code",
    "Home",
    "RayCluster",
    "Standing",
    "StudyResult",
    "Submission",
    "Unseen",
    "accepted",
    "came_to_its_end",
    "check_study",
    "data_of",
    "dataset_lines",
    "dataset_notes",
    "describe_data",
    "extend",
    "extend_on",
    "follow",
    "is_driven",
    "last_words",
    "list_on",
    "load_loss",
    "locate",
    "logs",
    "outcome",
    "prepare_data",
    "report",
    "resume",
    "resume_on",
    "retry",
    "retry_on",
    "run",
    "run_trial",
    "sample",
    "serve_ui",
    "spec_of",
    "spec_on",
    "status",
    "stop",
    "stop_on",
    "submit",
    "trial_of",
    "trials_of",
]
