"""Tree-structured Parzen estimator (Bergstra et al. 2011)."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from olfl_ray.search.sampled import Sampled

__all__ = ["Tpe"]


class Tpe(Sampled):
    """Proposes where good trials were dense and bad ones were not."""

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)
