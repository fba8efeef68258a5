"""Bayesian optimization with a Gaussian process."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from olfl_ray.search.sampled import Sampled

__all__ = ["GaussianProcess"]


class GaussianProcess(Sampled):
    """Searches ranges and lists without `when`; learns from finished trials only. The first ten trials are drawn at random."""

    widest = 10_000  # Optuna's enumerates all values of an integer range several times: 1e9 values need 16 GB

    def sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, warn_independent_sampling=False)
