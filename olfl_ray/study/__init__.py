"""The public functions: run, resume, extend, retry, stop, status, report, and what goes with them."""

from olfl_ray.study.check import check_study
from olfl_ray.study.datasets import dataset_lines, dataset_notes, describe_data, prepare_data
from olfl_ray.study.home import Home
from olfl_ray.study.look import STARTED, data_of, is_driven, report, sample, spec_of, status, stop, trials_of
from olfl_ray.study.loss import load_loss
from olfl_ray.study.run import StudyResult, extend, resume, retry, run
from olfl_ray.study.single import run_trial, trial_of
from olfl_ray.study.ui import serve_ui

__all__ = [
    "STARTED",
    "Home",
    "StudyResult",
    "check_study",
    "data_of",
    "dataset_lines",
    "dataset_notes",
    "describe_data",
    "extend",
    "is_driven",
    "load_loss",
    "prepare_data",
    "report",
    "resume",
    "retry",
    "run",
    "run_trial",
    "sample",
    "serve_ui",
    "spec_of",
    "status",
    "stop",
    "trial_of",
    "trials_of",
]
