"""Base step, meta-gradient estimators, Algorithms 1 and 2; needs torch alone."""

from olfl_ray.engine.exact import exact
from olfl_ray.engine.optimizers import Adam, Optimizer, Params, Sgd
from olfl_ray.engine.problem import Batch, Problem
from olfl_ray.engine.result import StepResult
from olfl_ray.engine.reverse import reverse
from olfl_ray.engine.steps import (
    LearnerState,
    Metrics,
    base_step,
    choose_estimator,
    init_step,
    meta_optimizer,
    online_lr_step,
    online_step,
    schedule_factor,
)

__all__ = [
    "Adam",
    "Batch",
    "LearnerState",
    "Metrics",
    "Optimizer",
    "Params",
    "Problem",
    "Sgd",
    "StepResult",
    "base_step",
    "choose_estimator",
    "exact",
    "init_step",
    "meta_optimizer",
    "online_lr_step",
    "online_step",
    "reverse",
    "schedule_factor",
]
