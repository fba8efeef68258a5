"""Base step, meta-gradient estimators, Algorithms 1 and 2; requires only torch."""

from olfl_ray.engine.algorithm1 import Algorithm1
from olfl_ray.engine.arithmetic import Precision, arithmetic
from olfl_ray.engine.batches import Batch
from olfl_ray.engine.carried import Carrier, carrying, completed, optimizer_for
from olfl_ray.engine.drawing import drawn
from olfl_ray.engine.estimators.choice import Memory, choose_estimator
from olfl_ray.engine.estimators.exact import exact
from olfl_ray.engine.estimators.finite_difference import finite_difference
from olfl_ray.engine.estimators.named import ESTIMATORS, NamedEstimator
from olfl_ray.engine.estimators.reverse import reverse
from olfl_ray.engine.graphed import Graphed, clone_state, copy_state
from olfl_ray.engine.heap import keep_freed_memory
from olfl_ray.engine.initialised import Initialised, initialise
from olfl_ray.engine.learner import OnlineLossLearner
from olfl_ray.engine.metagradient import meta_gradient
from olfl_ray.engine.optimizers import Adam, Optimizer, Sgd
from olfl_ray.engine.problem import Hooks, Problem
from olfl_ray.engine.prox_optimizers import ProxAdam, ProxSgd
from olfl_ray.engine.state import Estimator, LearnerState, StepResult
from olfl_ray.engine.steps import Metrics, base_step, init_step, meta_optimizer, online_step
from olfl_ray.learnable import Learnable, Params

__all__ = [
    "ESTIMATORS",
    "Adam",
    "Algorithm1",
    "Batch",
    "Carrier",
    "Estimator",
    "Graphed",
    "Hooks",
    "Initialised",
    "Learnable",
    "LearnerState",
    "Memory",
    "Metrics",
    "NamedEstimator",
    "OnlineLossLearner",
    "Optimizer",
    "Params",
    "Precision",
    "Problem",
    "ProxAdam",
    "ProxSgd",
    "Sgd",
    "StepResult",
    "arithmetic",
    "base_step",
    "carrying",
    "choose_estimator",
    "clone_state",
    "completed",
    "copy_state",
    "drawn",
    "exact",
    "finite_difference",
    "init_step",
    "initialise",
    "keep_freed_memory",
    "meta_gradient",
    "meta_optimizer",
    "online_step",
    "optimizer_for",
    "reverse",
]
