"""The public functions: run, resume, status, report, and what goes with them."""

from olfl_ray.study.home import Home
from olfl_ray.study.loss import load_loss
from olfl_ray.study.run import StudyResult, check_study, report, resume, run, status
from olfl_ray.study.single import describe_data, prepare_data, run_trial, sample, spec_of, trial_of, ui_command

__all__ = [
    "Home",
    "StudyResult",
    "check_study",
    "describe_data",
    "load_loss",
    "prepare_data",
    "report",
    "resume",
    "run",
    "run_trial",
    "sample",
    "spec_of",
    "status",
    "trial_of",
    "ui_command",
]
