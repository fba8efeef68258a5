"""A study and its handle: `Study` runs it, shows its state and returns its results, on this machine and on a cluster."""

from olfl_ray.driver import Home, StudyResult, check_dataset, dataset, describe_data, prepare_data
from olfl_ray.remote import Code
from olfl_ray.study.doctor import Finding, diagnose
from olfl_ray.study.explain import explain_loss
from olfl_ray.study.export import load_model
from olfl_ray.study.handle import Study
from olfl_ray.study.listing import list_studies
from olfl_ray.study.loss import export_loss, load_loss
from olfl_ray.study.plan import Plan
from olfl_ray.study.project import write_project
from olfl_ray.study.single import run_trial, trial_of
from olfl_ray.study.transfer import Transfer
from olfl_ray.study.trial_view import Trial
from olfl_ray.study.ui import serve_ui

__all__ = [
    "Code",
    "Finding",
    "Home",
    "Plan",
    "Study",
    "StudyResult",
    "Transfer",
    "Trial",
    "check_dataset",
    "dataset",
    "describe_data",
    "diagnose",
    "explain_loss",
    "export_loss",
    "list_studies",
    "load_loss",
    "load_model",
    "prepare_data",
    "run_trial",
    "serve_ui",
    "trial_of",
    "write_project",
]
