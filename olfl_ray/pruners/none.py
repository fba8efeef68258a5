"""No pruning: every trial runs to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olfl_ray.pruners.pruner import Pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

__all__ = ["Never"]


class Never(Pruner):
    """Ends no trial early."""

    def decides(self, before: int, step: int) -> bool:
        return False

    def rule(self) -> BasePruner:
        from optuna.pruners import NopPruner

        return NopPruner()
