"""The public functions: run, resume, extend, retry, stop, status, report, and what goes with them."""

from olfl_ray.study.check import check_study
from olfl_ray.study.home import Home
from olfl_ray.study.look import STARTED, report, spec_of, status, stop
from olfl_ray.study.loss import load_loss
from olfl_ray.study.run import StudyResult, extend, resume, retry, run
from olfl_ray.study.single import describe_data, prepare_data, run_trial, sample, serve_ui, trial_of

__all__ = [
    "STARTED",
    "Home",
    "StudyResult",
    "check_study",
    "describe_data",
    "extend",
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
]
