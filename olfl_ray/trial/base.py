"""The base optimizer and the schedule of its learning rate, from a trial's settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from olfl_ray.engine import Adam, Optimizer, Sgd
from olfl_ray.errors import SpecError
from olfl_ray.plugins import check_call, load_builder
from olfl_ray.spec import TrialConfig

__all__ = ["Schedule", "base_optimizer", "schedule_of"]

OPTIMIZER, SCHEDULE = "learner.optimizer", "learner.schedule"
Schedule: TypeAlias = Callable[[float], float]
"""From the fraction of the base steps that is done to the factor on the learning rate."""


def base_optimizer(config: TrialConfig) -> Optimizer:
    """The base optimizer of a trial's settings.

    Raises:
        SpecError: A user's own can't be imported, is no `Optimizer`, or does not take its settings.
    """
    spec: Any = config.learner.optimizer
    clip = config.learner.clip_norm
    if ":" in spec.name:
        return _own_optimizer(spec.name, spec.options, clip)
    if spec.name == "sgd":
        return Sgd(momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay, clip_norm=clip)
    return Adam(
        beta1=spec.beta1,
        beta2=spec.beta2,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        decoupled=spec.name == "adamw",
        clip_norm=clip,
    )


def schedule_of(config: TrialConfig) -> Schedule:
    """The schedule of a trial's settings.

    Raises:
        SpecError: A user's own can't be imported, or does not take its settings; and when it is called, if it gives no factor.
    """
    spec: Any = config.learner.schedule
    if ":" in spec.name:
        return _own_schedule(spec.name, spec.options)
    if spec.name == "milestones":
        return lambda done: float(spec.factor ** sum(done >= at for at in spec.at))
    if spec.name == "cosine":
        return lambda done: float(spec.final + (1 - spec.final) * 0.5 * (1 + math.cos(math.pi * done)))
    return lambda done: 1.0


def _own_optimizer(name: str, options: dict[str, Any], clip: float | None) -> Optimizer:
    build = load_builder(name, f"{OPTIMIZER}.name", (Optimizer,))
    check_call(name, build, options, OPTIMIZER)
    given = options if clip is None else {**options, "clip_norm": clip}
    check_call(name, build, given, "learner")
    try:
        made: Optimizer = build(**given)
    except Exception as error:
        raise SpecError(
            OPTIMIZER, f"{name!r} refuses {given} ({type(error).__name__}: {error}); correct them"
        ) from error
    return made


def _own_schedule(name: str, options: dict[str, Any]) -> Schedule:
    function = load_builder(name, f"{SCHEDULE}.name", (float, int))
    check_call(name, function, options, SCHEDULE, first=("done",))

    def factor(done: float) -> float:
        found = function(done, **options)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
            raise SpecError(
                f"{SCHEDULE}.name",
                f"{name!r} gives {found!r} after {done:.1%} of the steps, and must give a finite factor of at least 0",
            )
        return float(found)

    factor(0.0)
    return factor
