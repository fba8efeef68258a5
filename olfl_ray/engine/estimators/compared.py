"""An estimator that is compared with a plain loop: before the first step, at random steps, when the modules change."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.agreement import Moment
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import Estimator, LearnerState, StepResult

__all__ = ["EVERY", "SECOND", "Compared", "Record", "record_of"]

EVERY = 1000
"""Average number of steps between two comparisons: one takes as long as two or three steps."""
SECOND = 2
"""Number of steps left if the next step but one is to be compared."""


@dataclass(kw_only=True)
class Record:
    """Counts the steps until the next comparison.

    Args:
        random: A separate generator, so that no other one is used.
        left: Number of steps until the next comparison.
    """

    random: random.Random = field(default_factory=lambda: random.Random(0))
    left: int = EVERY

    def agreed(self) -> None:
        """Restart the count."""
        self.left = self.random.randint(1, 2 * EVERY - 1)

    def due(self) -> bool:
        """Whether this step is to be compared."""
        self.left -= 1
        return self.left <= 0


class Signature:
    """What determines a module's computation besides its tensors: submodules, their modes, hooks; quick to compare.

    Args:
        modules: The modules whose current submodules and parameters are compared.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._owns = [vars(part) for module in modules for part in module.modules()]
        self._hooks = [own[kind] for own in self._owns for kind in HOOKS]
        self._parameters = [value for own in self._owns for value in own["_parameters"].values() if value is not None]
        self._before = self._now()

    def holds(self) -> bool:
        """Whether nothing has changed."""
        return self._now() == self._before

    def _now(self) -> tuple[list[Any], ...]:
        return (
            [tuple(own["_modules"].values()) for own in self._owns],
            [own["training"] for own in self._owns],
            [len(hooks) for hooks in self._hooks],
            [bool(value._backward_hooks) for value in self._parameters],
        )


HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"

_records: weakref.WeakKeyDictionary[nn.Module, Record] = weakref.WeakKeyDictionary()


def record_of(module: nn.Module) -> Record:
    """The module's record; a comparison is valid for everything built from the module."""
    return _records.setdefault(module, Record())


class Compared:
    """An estimator with the signature of `reverse`.

    Args:
        way: low, fast, reverse, or finite_difference.
        estimator: Computes the step.
        compare: Raises if the estimator differs from a plain loop at a moment.
        choose: Returns the estimator for modules that have changed.
        again: The same estimator for another `Problem` of the same modules, without a comparison; it must not hold the modules.
    """

    def __init__(
        self,
        way: str,
        estimator: Estimator,
        problem: Problem,
        compare: Callable[[Problem, Moment], None],
        choose: Callable[[Problem, Moment], Compared],
        again: Callable[[Problem], Compared],
    ) -> None:
        self.again = again
        self.way, self._estimator, self._compare, self._choose = way, estimator, compare, choose
        self._signature, self._record = Signature(problem.module, problem.learned), record_of(problem.module)

    def __call__(
        self,
        problem: Problem,
        state: LearnerState,
        lr: float | Tensor,
        train: Sequence[Batch],
        meta: Batch,
        *,
        fresh: bool = False,
    ) -> StepResult:
        """Arguments and result are those of `Estimator`."""
        if not _captured(problem.device):
            changed = not self._signature.holds()
            if changed:
                problem.look_again()
            if changed or self._record.due():
                own = state.loss_buffers or problem.loss_buffers()
                moment = Moment(
                    theta=state.theta, buffers=state.buffers, phi=state.phi, loss_buffers=own, batch=train[0]
                )
                if changed:
                    vars(self).update(vars(self._choose(problem, moment)))
                else:
                    self._compare(problem, moment)
        return self._estimator(problem, state, lr, train, meta, fresh=fresh)


def _captured(device: torch.device) -> bool:
    """Whether the step is being captured as a graph, or is about to be: then no value may be read."""
    if device.type != "cuda":
        return False
    return torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode() == 2
