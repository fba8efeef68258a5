"""Quasi-random search: a scrambled Sobol' sequence, whose n-th point depends on no result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler

from olfl_ray.search.sampled import Sampled
from olfl_ray.search.space import value_at

__all__ = ["QuasiRandom"]


class QuasiRandom(Sampled):
    """Covers the space evenly. The value of a field whose condition does not hold is ignored."""

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)

    def listed(self, ordinal: int) -> Mapping[str, Any] | None:
        from scipy.stats.qmc import Sobol

        parameters = self.space.parameters
        if not parameters:
            return None
        sequence = Sobol(len(parameters), scramble=True, seed=self.space.seed)
        if ordinal:
            sequence.fast_forward(ordinal)
        shares = sequence.random(1)[0]
        return {
            field: value_at(parameter, float(share))
            for (field, parameter), share in zip(parameters.items(), shares, strict=True)
        }
