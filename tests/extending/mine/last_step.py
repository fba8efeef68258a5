"""An estimator: backpropagation truncated to the last base step; those before it are taken as given."""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from olfl_ray.engine import Batch, LearnerState, NamedEstimator, Problem, StepResult, base_step, reverse


class LastStep(NamedEstimator):
    error = math.inf  # what it leaves out is as large as the steps make it

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
        *before, last = train
        if before and fresh:
            loss_buffers = state.loss_buffers or problem.loss_buffers()
            state = replace(state, theta=problem.starting(state.phi, loss_buffers, state.theta))
        for batch in before:
            state, _ = base_step(problem, state, batch, lr)
        return reverse(problem, state, lr, [last], meta, fresh=fresh and not before)
