"""Algorithm 1: phi' = phi - eta grad_phi L_T after S_inner base steps, with a new base learner each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from olfl_ray.engine.batches import Batch, joined, parted
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import Estimator, LearnerState
from olfl_ray.engine.steps import Metrics, init_step

__all__ = ["Algorithm1"]


class Algorithm1:
    """The rounds of Algorithm 1. Whoever runs them decides how a step is taken: as it is, or as a captured graph.

    Args:
        problem: Base learner, learnable, losses, optimizer.
        fresh: From a round's number to a base learner with new initial weights.
        batches: From a round's number to its S_inner train batches and its meta batch.
        lr: Base learning rate.
        eta: Meta learning rate.
        estimator: Of the meta-gradient.
        meta_optimizer: Of phi.
        clip_norm: Largest norm of the meta-gradient; None: no clipping.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        fresh: Callable[[int], nn.Module],
        batches: Callable[[int], tuple[Sequence[Batch], Batch]],
        lr: float,
        eta: float,
        estimator: Estimator,
        meta_optimizer: Optimizer,
        clip_norm: float | None,
    ) -> None:
        self._problem, self._fresh, self._batches = problem, fresh, batches
        self._lr, self._eta, self._clip_norm = lr, eta, clip_norm
        self._estimator, self._meta_optimizer = estimator, meta_optimizer
        self._form: Any = None  # of a round's batches

    def begun(self, learner: LearnerState) -> LearnerState:
        """The learner before the first round."""
        return replace(learner, meta_state=self._meta_optimizer.init(learner.phi))

    def rounds(self, start: int, end: int, advance: Callable[[Sequence[Tensor]], Metrics]) -> list[Tensor]:
        """Rounds `start` to `end`.

        Args:
            start: The first.
            end: One after the last.
            advance: Takes a `step` on a round's tensors, and keeps the new state.

        Returns:
            L_T after the unrolled steps, a scalar on the device for each round.
        """
        return [advance(self._inputs(index))["meta_loss"] for index in range(start, end)]

    def step(self, state: LearnerState, inputs: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        """One round on its tensors: the new base learner's parameters and buffers, then the batches'."""
        given = iter(inputs)
        theta = {name: next(given) for name in state.theta}
        buffers = {name: next(given) for name in state.buffers}
        *train, last = joined(list(given), self._form)
        new, loss = init_step(
            self._problem,
            state,
            theta,
            buffers,
            train,
            last,
            lr=self._lr,
            eta=self._eta,
            estimator=self._estimator,
            meta_optimizer=self._meta_optimizer,
            clip_norm=self._clip_norm,
        )
        return new, {"meta_loss": loss}

    def _inputs(self, index: int) -> list[Tensor]:
        fresh = self._fresh(index)
        train, meta = self._batches(index)
        values, self._form = parted([*train, meta])
        return [*(p.detach() for p in fresh.parameters() if p.requires_grad), *fresh.buffers(), *values]
