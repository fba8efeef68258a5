"""Quasi-random search: a scrambled Sobol' sequence, whose n-th point depends on no result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler

from olfl_ray.search.sampled import Sampled
from olfl_ray.spec import Parameter

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
            field: _at(parameter, float(share))
            for (field, parameter), share in zip(parameters.items(), shares, strict=True)
        }


def _at(parameter: Parameter, share: float) -> Any:
    """The value at a fraction in [0, 1) of a range or a list."""
    if parameter.values is not None:
        return parameter.values[int(share * len(parameter.values))]
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    end = high + 1 if parameter.is_integer else high
    value = low * (end / low) ** share if parameter.log else low + (end - low) * share
    return min(int(value), high) if parameter.is_integer else min(value, high)
