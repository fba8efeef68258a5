"""A pruner that ends a trial whose metric has stopped improving."""

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from olfl_ray.pruners import Pruner
from olfl_ray.spec import Steps, Strict


class Stalled(BasePruner):
    def __init__(self, decisions: int) -> None:
        self.decisions = decisions

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        values = [value for _, value in sorted(trial.intermediate_values.items())]
        best = min(values) if study.direction == StudyDirection.MINIMIZE else max(values)
        return len(values) - 1 - values.index(best) >= self.decisions


class Patience(Pruner):
    class Config(Strict):
        min_steps: Steps = 100
        """Base steps between two decisions."""
        decisions: int = 3
        """Decisions without an improvement after which a trial ends."""

    def rule(self) -> BasePruner:
        return Stalled(self.config.decisions)
