"""The median rule (Golovin et al., Google Vizier, 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olfl_ray.pruners.pruner import Pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["Median"]

SEEN = 4
"""Finished trials that it needs."""


class Median(Pruner):
    """Every `min_steps`, a trial ends whose best value so far is worse than the median of the finished trials' at that step."""

    config: Pruner.Config

    def rule(self) -> BasePruner:
        from optuna.pruners import MedianPruner

        return MedianPruner(n_startup_trials=SEEN, n_warmup_steps=self.config.min_steps - 1)
