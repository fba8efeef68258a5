"""The base optimizer and the schedule of its learning rate, from a trial's settings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from olfl_ray.engine import Optimizer
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params
from olfl_ray.optimizers import OPTIMIZERS
from olfl_ray.plugins import check_call, load_builder
from olfl_ray.schedules import SCHEDULES, Schedule
from olfl_ray.spec import OptimizerSpec, Strict, TrialConfig, checked_options

__all__ = ["Factor", "base_optimizer", "initial_state", "meta_optimizer", "schedule_of"]

OPTIMIZER, SCHEDULE, META = "learner.optimizer", "learner.schedule", "meta.optimizer"
Factor: TypeAlias = Callable[[float], float]
"""From the fraction of the base steps that is done to the factor on the learning rate."""


def base_optimizer(config: TrialConfig) -> Optimizer:
    """The base optimizer of a trial's settings.

    Raises:
        SpecError: A user's own can't be imported, is no `Optimizer`, or does not take its settings.
    """
    return _optimizer(config.learner.optimizer, config.learner.clip_norm, OPTIMIZER)


def meta_optimizer(config: TrialConfig) -> Optimizer:
    """The meta-optimizer of a trial's settings.

    Raises:
        SpecError: A user's own can't be imported, is no `Optimizer`, or needs settings.
    """
    return _optimizer(OptimizerSpec(name=config.meta.optimizer), None, META)


def _optimizer(section: OptimizerSpec, clip: float | None, field: str) -> Optimizer:
    if ":" in section.name:
        return _own_optimizer(section.name, section.options, clip, field)
    found = OPTIMIZERS.find(section.name, field)
    settings = checked_options(found.Config, {**section.options, "lr": section.lr}, field)
    return found(settings).build(clip)


def initial_state(optimizer: Optimizer, theta: Params) -> dict[str, Tensor]:
    """The optimizer's state before the first step.

    Raises:
        SpecError: One of its settings does not fit the base learner's parameters.
    """
    try:
        return optimizer.init(theta)
    except SpecError as error:
        raise SpecError(f"{OPTIMIZER}.{error.field}", error.problem) from None


def schedule_of(config: TrialConfig) -> Factor:
    """The schedule of a trial's settings.

    Raises:
        SpecError: A user's own can't be imported, or does not take its settings; and when it is called, if it gives no factor.
    """
    section = config.learner.schedule
    if ":" in section.name:
        return _own_schedule(section.name, section.options)
    found = SCHEDULES.find(section.name, f"{SCHEDULE}.name")
    return found(checked_options(found.Config, section.options, SCHEDULE)).factor


def _own_optimizer(name: str, options: Mapping[str, Any], clip: float | None, field: str) -> Optimizer:
    build = load_builder(name, f"{OPTIMIZER}.name" if field == OPTIMIZER else field, (Optimizer,))
    form = getattr(build, "Config", None)
    if isinstance(form, type) and issubclass(form, Strict):
        settings = checked_options(form, options, field)
        options = {key: getattr(settings, key) for key in form.model_fields}
    check_call(name, build, options, field)
    given = options if clip is None else {**options, "clip_norm": clip}
    check_call(name, build, given, "learner")
    try:
        made: Optimizer = build(**given)
    except Exception as error:
        raise SpecError(field, f"{name!r} refuses {given} ({type(error).__name__}: {error}); correct them") from error
    return made


def _own_schedule(name: str, options: Mapping[str, Any]) -> Factor:
    found: Any = load_builder(name, f"{SCHEDULE}.name", (float, int, Schedule))
    function: Callable[[float], Any]
    if isinstance(found, type) and issubclass(found, Schedule):
        function = found(checked_options(found.Config, options, SCHEDULE)).factor
    else:
        check_call(name, found, options, SCHEDULE, first=("done",))
        function = functools.partial(found, **options)

    def factor(done: float) -> float:
        found = function(done)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
            raise SpecError(
                f"{SCHEDULE}.name",
                f"{name!r} gives {found!r} after {done:.1%} of the steps, and must give a finite factor of at least 0",
            )
        return float(found)

    factor(0.0)
    return factor
