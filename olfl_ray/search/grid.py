"""Grid search: all combinations of the lists' values; the grid is never built in full."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler

from olfl_ray.errors import SpecError
from olfl_ray.search.sampled import Sampled
from olfl_ray.spec import same

__all__ = ["Grid"]


class Grid(Sampled):
    """Starts with the spec's own point if it is in the grid, then covers the others in order."""

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)

    def check(self) -> None:
        for field, parameter in self.space.parameters.items():
            if parameter.values is None or parameter.when:
                raise SpecError(
                    self.space.where[field],
                    "the grid sampler needs `values` and no `when`; list the values, or use tpe",
                )

    def listed(self, ordinal: int) -> Mapping[str, Any]:
        """The digits of a point's number are the positions in the lists; the last list varies fastest."""
        columns = {field: parameter.values or () for field, parameter in self.space.parameters.items()}
        if (own := self.space.own) is not None:
            first = 0
            for field, values in columns.items():
                place = next(place for place, value in enumerate(values) if same(value, own[field]))
                first = first * len(values) + place
            if ordinal <= first:
                ordinal = ordinal - 1 if ordinal else first
        assert ordinal < math.prod(map(len, columns.values()))
        point = {}
        for field, values in reversed(list(columns.items())):
            ordinal, place = divmod(ordinal, len(values))
            point[field] = values[place]
        return {field: point[field] for field in columns}
