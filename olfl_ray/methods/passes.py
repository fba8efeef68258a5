"""The cost of a trial in passes of the base learner, which do not depend on the machine."""

from __future__ import annotations

from olfl_ray.methods.chosen import method_of
from olfl_ray.spec import TrialConfig

__all__ = ["base_passes"]


def base_passes(config: TrialConfig) -> int:
    """Batches that pass through the base learner in the training of one replicate, without evaluations.

    A base step has one; a round of Algorithm 1 has one for each of its base steps and one for the outer objective; a
    meta-update of Algorithm 2 has one more than its base step. What a meta-gradient costs besides is not counted.
    """
    method, meta, steps = method_of(config.learner), config.meta, config.learner.steps
    rounds = meta.init_steps if method.before and config.loss.from_ is None else 0
    updates = steps // meta.every if method.during else 0
    return rounds * (meta.inner_steps + 1) + steps + updates
