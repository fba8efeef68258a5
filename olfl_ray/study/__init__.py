"""The public functions: run, resume, status, report."""

from olfl_ray.study.home import Home
from olfl_ray.study.run import StudyResult, check_study, report, resume, run, status

__all__ = ["Home", "StudyResult", "check_study", "report", "resume", "run", "status"]
