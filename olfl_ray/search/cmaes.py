"""CMA-ES (Hansen 2016)."""

from __future__ import annotations

from optuna.samplers import BaseSampler, CmaEsSampler

from olfl_ray.errors import SpecError
from olfl_ray.search.sampled import Sampled

__all__ = ["CmaEs"]


class CmaEs(Sampled):
    """Searches ranges without `when`; learns from finished trials only. Other fields are drawn at random."""

    def sampler(self, seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)

    def replaying(self) -> BaseSampler:
        return self.sampler(0)  # it keeps its state in the trials that it proposed

    def check(self) -> None:
        parameters = self.space.parameters
        moved = [
            field
            for field, parameter in parameters.items()
            if parameter.values is None and not any(other in parameters for other in parameter.when)
        ]
        if parameters and not moved:  # all fields would be drawn at random, which was not requested
            raise SpecError(
                "search.sampler",
                f"cmaes needs a range that is searched in every trial, and arm {self.space.arm!r} has none; use tpe, or "
                "search one",
            )
