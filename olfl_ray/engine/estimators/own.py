"""A user's estimator: before the first step, one step of it is compared with reverse over reverse on a few examples."""

from __future__ import annotations

from collections.abc import Callable

import torch

from olfl_ray.engine.estimators.agreement import rounding, size
from olfl_ray.engine.estimators.named import NamedEstimator
from olfl_ray.engine.estimators.reverse import reverse
from olfl_ray.engine.state import Estimator, StepResult
from olfl_ray.errors import SpecError, UserError
from olfl_ray.learnable import Params

__all__ = ["check_own"]

STATE = ("theta", "buffers", "opt_state", "loss_buffers")


def check_own(estimator: NamedEstimator, name: str, step: Callable[[Estimator], StepResult]) -> None:
    """Refuse an estimator that takes another base step than reverse over reverse, or whose gradient is too far from its.

    Args:
        estimator: The user's.
        name: Its name in the spec.
        step: Takes a step with an estimator, always from the same state and random numbers.

    Raises:
        SpecError: It is such an estimator, or it raised an error.
    """

    def refused(problem: str) -> SpecError:
        return SpecError("meta.estimator", f"{name!r} {problem}")

    try:
        given = step(estimator)
    except UserError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise refused(f"raised {type(error).__name__}: {error}; correct it") from error
    if not isinstance(given, StepResult):
        raise refused(f"returned a {type(given).__name__}; it must return a StepResult")
    try:
        wanted = step(reverse)
    except Exception:  # this learner's operators can't be differentiated twice, so there is nothing to compare with
        return
    for part in STATE:
        if not _near(getattr(given, part), getattr(wanted, part), 0.0):
            raise refused(f"takes another base step than reverse over reverse: {part} differs; correct it")
    if not _near(given.phi_grad, wanted.phi_grad, estimator.error):
        raise refused(
            f"gives a gradient that is not within a relative distance of {estimator.error:g} from that of reverse over "
            "reverse; correct it, or raise its `error`"
        )


def _near(given: Params, wanted: Params, error: float) -> bool:
    if given.keys() != wanted.keys() or any(given[name].shape != value.shape for name, value in wanted.items()):
        return False
    if not all(torch.isfinite(value).all() for value in wanted.values()):
        return True
    distance = size({name: given[name] - value for name, value in wanted.items()})
    return distance <= error * size(wanted) + rounding(wanted)
