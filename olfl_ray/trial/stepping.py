"""One replicate's steps of Algorithms 1 and 2; on a GPU its state stays at fixed addresses and each kind of step is a graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from olfl_ray.engine import (
    Algorithm1,
    Batch,
    Graphed,
    LearnerState,
    Metrics,
    base_step,
    clone_state,
    copy_state,
    online_step,
)
from olfl_ray.engine.carried import measured as of_losses
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial.build import Replicate
from olfl_ray.trial.measure import learned_now

__all__ = ["Stepper"]


class Stepper:
    """Advances a replicate from one record to the next, without synchronizing with the device in between.

    Args:
        config: The trial's settings.
        replicate: Its fixed parts.
        in_place: Whether the state stays in place, on a GPU with one captured graph per kind of step.
    """

    def __init__(self, config: TrialConfig, replicate: Replicate, *, in_place: bool) -> None:
        self._config, self._replicate, self._in_place = config, replicate, in_place
        self._graphs: dict[str, Graphed] = {}
        self._state = clone_state(replicate.start) if in_place else replicate.start
        self._algorithm1 = Algorithm1(
            replicate.problem,
            fresh=lambda index: replicate.rebuild(seed_of(replicate.seed, "reset", index)),
            batches=self._episode,
            lr=config.learner.optimizer.lr,
            eta=config.meta.eta_init,
            estimator=replicate.estimator,
            meta_optimizer=replicate.meta_optimizer,
            clip_norm=config.meta.clip_norm,
        )

    def initialise(self, learner: LearnerState, start: int, end: int) -> tuple[LearnerState, float]:
        """Run rounds `start` to `end` of Algorithm 1.

        Returns:
            The learner with its new phi, and the mean of L_T after the unrolled steps.
        """
        if start == 0:
            learner = self._algorithm1.begun(learner)
        self._begin(learner)
        losses = self._algorithm1.rounds(start, end, partial(self._advance, "init"))
        return self._end(), torch.stack(losses).double().mean().item()

    def train(self, learner: LearnerState, start: int, end: int) -> tuple[LearnerState, dict[str, float]]:
        """Run base steps `start` to `end`.

        Returns:
            The learner after them, and the means of their metrics.
        """
        config, replicate = self._config, self._replicate
        method, meta = replicate.method, config.meta
        self._graphs.pop("init", None)  # its memory can't be reused while it exists
        self._begin(learner)
        found: dict[str, list[Tensor]] = {}
        factor = 1.0
        for index in range(start, end):
            factor = replicate.schedule(index / config.learner.steps)
            inputs: list[Tensor | float] = [*replicate.data.batch("train", "train", index), factor]
            kind = "base"
            if method.during and (index + 1) % meta.every == 0:
                inputs += replicate.data.batch("meta", meta.batch, index)
                kind = "online"
            for name, value in self._advance(kind, inputs).items():
                found.setdefault(name, []).append(value)
        means = {name: torch.stack(values).double().mean().item() for name, values in found.items()}
        renamed = {
            "base_loss": names.TRAIN_LEARNED_LOSS,
            "task_loss": names.TRAIN_TASK_LOSS,
            "meta_loss": names.META_TASK_LOSS,
            "grad_norm": names.META_GRAD_NORM,
        }
        if not replicate.problem.hooks.gradient:
            del renamed["base_loss"]
        learner = self._end()
        measured = {renamed[name]: value for name, value in means.items() if name in renamed}
        measured[names.TRAIN_LR] = lr = config.learner.optimizer.lr * factor
        with replicate.problem.placed(learner.theta, learner.buffers):
            measured |= of_losses(replicate.problem.module)
        with learned_now(replicate, learner) as learnable:
            return learner, measured | learnable.measured(lr)

    def _begin(self, learner: LearnerState) -> None:
        if self._in_place:
            copy_state(learner, self._state)
        else:
            self._state = learner

    def _advance(self, kind: str, inputs: Sequence[Tensor | float]) -> Metrics:
        step = {"init": self._algorithm1.step, "base": self._base, "online": self._online}[kind]
        if not self._in_place:
            self._state, measured = step(self._state, inputs)
            return measured
        if kind not in self._graphs:
            on_gpu = next(iter(self._state.theta.values())).is_cuda
            self._graphs[kind] = Graphed(step, self._state, capture=on_gpu)
        return self._graphs[kind](inputs)

    def _end(self) -> LearnerState:
        return clone_state(self._state) if self._in_place else self._state

    def _episode(self, index: int) -> tuple[list[Batch], Batch]:
        episode, inner_steps = self._replicate.episode(index), self._config.meta.inner_steps
        numbers = range(index * inner_steps, (index + 1) * inner_steps)
        train: list[Batch] = [episode.batch("init_train", "train", number) for number in numbers]
        return train, episode.batch("init_meta", self._config.meta.batch, index)

    def _base(self, state: LearnerState, inputs: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        x, y, factor = inputs
        return base_step(self._replicate.problem, state, (x, y), self._config.learner.optimizer.lr * factor)

    def _online(self, state: LearnerState, inputs: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        x, y, factor, meta_x, meta_y = inputs
        config, replicate = self._config, self._replicate
        return online_step(
            replicate.problem,
            state,
            (x, y),
            (meta_x, meta_y),
            lr=config.learner.optimizer.lr * factor,
            eta=config.meta.eta_online,
            estimator=replicate.estimator,
            meta_optimizer=replicate.meta_optimizer,
            clip_norm=config.meta.clip_norm,
        )
