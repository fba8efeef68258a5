"""The rules of `search.pruner`, for searchers without rules of their own: Optuna's pruners on the known trials."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.samplers import RandomSampler

from olfl_ray.search.space import SearchTrial, Space
from olfl_ray.search.studies import report, study_of

__all__ = ["prunes"]


def prunes(space: Space, known: Iterable[SearchTrial], trial: SearchTrial) -> bool:
    """Whether a trial ends at its newest value.

    Args:
        space: The search space, with the pruner's settings.
        known: All trials; this one without its newest value.
        trial: This trial with its newest value.
    """
    _, running = study_of(space, sorted(known, key=lambda one: one.ordinal), RandomSampler(seed=0))
    return report(running[trial.ordinal], *trial.values[-1])
