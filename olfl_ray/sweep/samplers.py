"""How the next point is proposed: Optuna's samplers by name; and grid and qmc, whose n-th point needs no other's result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from olfl_ray.spec import Parameter, same

__all__ = ["listed", "replaying_sampler", "sampler"]


def sampler(name: str, seed: int) -> BaseSampler:
    """Optuna's sampler called `name`; of a grid and of qmc every point is given, and none is sampled."""
    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)


def replaying_sampler(name: str) -> BaseSampler:
    """What is asked while known trials are put into a study: their values are given, so the cheapest that will do.

    CMA-ES keeps its state in the trials that it proposed.
    """
    return sampler(name if name == "cmaes" else "random", 0)


def listed(
    name: str, parameters: Mapping[str, Parameter], own: Mapping[str, Any] | None, *, seed: int, ordinal: int
) -> dict[str, Any] | None:
    """The point of trial `ordinal` where it does not depend on results; None where a sampler gives it.

    Args:
        name: The sampler's.
        parameters: Searched fields. A value of a field whose condition does not hold is not used.
        own: The spec's own point, which a grid begins with where it is one of its points.
        seed: Of the sequence.
        ordinal: Which point, from 0.
    """
    if name == "grid":
        return _of_grid({field: parameter.values or () for field, parameter in parameters.items()}, own, ordinal)
    if name == "qmc" and parameters:
        from scipy.stats.qmc import Sobol

        sequence = Sobol(len(parameters), scramble=True, seed=seed)
        if ordinal:
            sequence.fast_forward(ordinal)
        shares = sequence.random(1)[0]
        return {
            field: _at(parameter, float(share))
            for (field, parameter), share in zip(parameters.items(), shares, strict=True)
        }
    return None


def _of_grid(columns: Mapping[str, Sequence[Any]], own: Mapping[str, Any] | None, ordinal: int) -> dict[str, Any]:
    """A point of a grid, which is never built in full: its number's digits are the positions in the lists, the last the lowest."""
    if own is not None:
        first = 0
        for field, values in columns.items():
            first = first * len(values) + next(place for place, value in enumerate(values) if same(value, own[field]))
        if ordinal <= first:
            ordinal = ordinal - 1 if ordinal else first
    assert ordinal < math.prod(map(len, columns.values()))
    point = {}
    for field, values in reversed(list(columns.items())):
        ordinal, place = divmod(ordinal, len(values))
        point[field] = values[place]
    return {field: point[field] for field in columns}


def _at(parameter: Parameter, share: float) -> Any:
    """The value that lies at a share of the way, in [0, 1), through a range or a list."""
    if parameter.values is not None:
        return parameter.values[int(share * len(parameter.values))]
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    end = high + 1 if parameter.is_integer else high
    value = low * (end / low) ** share if parameter.log else low + (end - low) * share
    return min(int(value), high) if parameter.is_integer else min(value, high)
