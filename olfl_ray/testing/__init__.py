"""Contract suites: the guarantees of each part as test classes, which tests of a user's own implementation inherit."""

from olfl_ray.testing.estimators import EstimatorContract
from olfl_ray.testing.learnables import LearnableContract
from olfl_ray.testing.losses import LearnedLossContract
from olfl_ray.testing.methods import MethodContract
from olfl_ray.testing.optimizers import OptimizerContract
from olfl_ray.testing.pruners import PrunerContract
from olfl_ray.testing.searchers import SearcherContract, formula_space, list_space, mixed_space
from olfl_ray.testing.studies import HandMadeStudy
from olfl_ray.testing.tasks import TaskContract
from olfl_ray.testing.trackers import Kept, TrackerContract

__all__ = [
    "EstimatorContract",
    "HandMadeStudy",
    "Kept",
    "LearnableContract",
    "LearnedLossContract",
    "MethodContract",
    "OptimizerContract",
    "PrunerContract",
    "SearcherContract",
    "TaskContract",
    "TrackerContract",
    "formula_space",
    "list_space",
    "mixed_space",
]
