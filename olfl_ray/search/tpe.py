"""Tree-structured Parzen estimator (Bergstra et al. 2011)."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from olfl_ray.search.sampled import Sampled

__all__ = ["Tpe"]


class Tpe(Sampled):
    """Proposes points where good trials are dense and bad ones sparse."""

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)
