"""A learner's state as a dict of tensors and numbers, and back: all of it is checked before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from olfl_ray.engine.arguments import check_rate, check_state
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.graphed import copy_state
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import LearnerState
from olfl_ray.errors import SpecError

__all__ = ["load_state", "state_of"]

PARTS = ("steps", "eta", "optimizer", "optimizer_settings", "meta_optimizer")
MODULES = ("module", "learned_loss")


def state_of(
    problem: Problem, state: LearnerState, optimizer: Optimizer, *, steps: int, eta: float, modules: bool
) -> dict[str, Any]:
    """Copies of a learner's tensors, and its numbers.

    Args:
        problem: Its modules.
        state: Its tensors.
        optimizer: Its base optimizer.
        steps: Steps taken.
        eta: Meta learning rate.
        modules: Whether the modules' state_dicts are part of it.
    """
    found: dict[str, Any] = {
        "steps": steps,
        "eta": eta,
        "optimizer": _copies(state.opt_state),
        "optimizer_settings": optimizer.settings() if isinstance(optimizer, Followed) else {},
        "meta_optimizer": _copies(state.meta_state),
    }
    if modules:
        found |= {"module": _copies(problem.module.state_dict()), "learned_loss": _copies(problem.learned.state_dict())}
    return found


def load_state(problem: Problem, state: LearnerState, optimizer: Optimizer, given: Any) -> tuple[int, float]:
    """Copy a `state_of` into a learner's own tensors.

    Returns:
        Its steps and its eta.

    Raises:
        SpecError: It has other parts, tensors, shapes or types; nothing was copied then.
    """
    allowed = {frozenset(PARTS), frozenset((*PARTS, *MODULES))}
    if not isinstance(given, Mapping) or frozenset(given) not in allowed:
        raise SpecError("state", f"must be a learner's state_dict, which holds {', '.join((*PARTS, *MODULES))}")
    if not isinstance(given["steps"], int) or given["steps"] < 0:
        raise SpecError("steps", f"is {given['steps']!r}, but must be a number of steps; load an unchanged state_dict")
    check_rate("eta", given["eta"])
    check_state("optimizer", given["optimizer"], state.opt_state)
    check_state("meta_optimizer", given["meta_optimizer"], state.meta_state)
    settings = given["optimizer_settings"]
    own = optimizer.settings() if isinstance(optimizer, Followed) else {}
    if not isinstance(settings, Mapping) or (settings.keys() ^ own.keys()) - {"initial_lr"}:  # a scheduler's
        raise SpecError(
            "optimizer_settings", "are those of another optimizer; use the one that the state was made with"
        )
    held: dict[str, nn.Module] = {"module": problem.module, "learned_loss": problem.learned}
    for field in MODULES:
        if field in given:
            check_state(field, given[field], held[field].state_dict())
    copy_state(replace(state, opt_state=dict(given["optimizer"]), meta_state=dict(given["meta_optimizer"])), state)
    for field in MODULES:
        if field in given:
            held[field].load_state_dict(given[field])
    if isinstance(optimizer, Followed):
        optimizer.set(settings)
    return given["steps"], float(given["eta"])


def _copies(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in tensors.items()}
