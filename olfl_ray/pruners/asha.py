"""Asynchronous successive halving (Li et al., arXiv 1810.05934)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olfl_ray.pruners.pruner import Pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["SuccessiveHalving"]


class SuccessiveHalving(Pruner):
    """Asynchronous successive halving: it decides at `min_steps`, and at each `reduction` times as many steps."""

    config: Pruner.Config

    def decides(self, before: int, step: int) -> bool:
        rung = self.config.min_steps
        while rung <= before:
            rung *= self.config.reduction
        return rung <= step

    def rule(self) -> BasePruner:
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(min_resource=self.config.min_steps, reduction_factor=self.config.reduction)
