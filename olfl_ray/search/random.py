"""Random search."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from olfl_ray.search.sampled import Sampled

__all__ = ["RandomSearch"]


class RandomSearch(Sampled):
    """Draws each field independently."""

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)
