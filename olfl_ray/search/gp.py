"""Bayesian optimisation with a Gaussian process."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from olfl_ray.search.sampled import Sampled

__all__ = ["GaussianProcess"]


class GaussianProcess(Sampled):
    """Searches ranges and lists without `when`; learns from finished trials only. The first ten trials are drawn at random."""

    widest = 10_000  # Optuna's lists all values of a range of whole numbers, several times: 1e9 of them take 16 GB

    def sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, warn_independent_sampling=False)
