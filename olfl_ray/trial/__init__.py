"""One trial, from settings to records; needs neither Ray nor MLflow nor Optuna."""

from olfl_ray.trial.build import set_threads
from olfl_ray.trial.check import check
from olfl_ray.trial.data_summary import DataSummary, data_summary
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.export import FORMATS, describe, model_to_bytes, read_model, traced
from olfl_ray.trial.model import TrainedModel, trained_model
from olfl_ray.trial.pruned import Speed, pruned_model, speed
from olfl_ray.trial.run import PhiCache, Progress, run
from olfl_ray.trial.state import TrialState, state_from_bytes, state_to_bytes

__all__ = [
    "FORMATS",
    "DataSummary",
    "PhiCache",
    "Progress",
    "Speed",
    "TrainedModel",
    "TrialEnvironment",
    "TrialState",
    "check",
    "data_summary",
    "describe",
    "model_to_bytes",
    "pruned_model",
    "read_model",
    "run",
    "set_threads",
    "speed",
    "state_from_bytes",
    "state_to_bytes",
    "traced",
    "trained_model",
]
