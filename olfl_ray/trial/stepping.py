"""One replicate's steps of Algorithms 1 and 2; on a GPU its state stays at fixed addresses and each kind of step is one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from olfl_ray.engine import (
    Graphed,
    LearnerState,
    Metrics,
    base_step,
    clone_state,
    copy_state,
    init_step,
    online_step,
    schedule_factor,
)
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial.build import Replicate
from olfl_ray.trial.measure import learned_now

__all__ = ["Stepper"]


class Stepper:
    """From one record of a replicate to the next. Nothing in between asks the device for a value.

    Args:
        config: The trial's settings.
        replicate: Its fixed parts.
        in_place: Whether the state stays in place, in one captured graph a kind of step where it is on a GPU.
    """

    def __init__(self, config: TrialConfig, replicate: Replicate, *, in_place: bool) -> None:
        self._config, self._replicate, self._in_place = config, replicate, in_place
        self._graphs: dict[str, Graphed] = {}
        self._state = clone_state(replicate.start) if in_place else replicate.start

    def initialise(self, learner: LearnerState, start: int, end: int) -> tuple[LearnerState, float]:
        """Rounds `start` to `end` of Algorithm 1.

        Returns:
            The learner with its new phi, and the mean of L_T after the unrolled steps.
        """
        replicate, meta = self._replicate, self._config.meta
        if start == 0:
            learner = replace(learner, meta_state=replicate.meta_optimizer.init(learner.phi))
        self._begin(learner)
        losses: list[Tensor] = []
        for index in range(start, end):
            fresh = replicate.rebuild(seed_of(replicate.seed, "reset", index))
            inputs: list[Tensor] = [p.detach() for p in fresh.parameters() if p.requires_grad]
            inputs += fresh.buffers()
            episode = replicate.episode(index)
            for inner in range(meta.inner_steps):
                inputs += episode.batch("init_train", "train", index * meta.inner_steps + inner)
            inputs += episode.batch("init_meta", meta.batch, index)
            losses.append(self._advance("init", inputs)["meta_loss"])
        return self._end(), torch.stack(losses).double().mean().item()

    def train(self, learner: LearnerState, start: int, end: int) -> tuple[LearnerState, dict[str, float]]:
        """Base steps `start` to `end`.

        Returns:
            The learner after them, and the means of what they measured.
        """
        config, replicate = self._config, self._replicate
        method, meta = replicate.method, config.meta
        self._graphs.pop("init", None)  # a graph's memory serves nothing else while it exists
        self._begin(learner)
        found: dict[str, list[Tensor]] = {}
        factor = 1.0
        for index in range(start, end):
            factor = schedule_factor(config.learner.schedule, index, config.learner.steps)
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
        with learned_now(replicate, learner) as learnable:
            return learner, measured | learnable.measured(lr)

    def _begin(self, learner: LearnerState) -> None:
        if self._in_place:
            copy_state(learner, self._state)
        else:
            self._state = learner

    def _advance(self, kind: str, inputs: Sequence[Tensor | float]) -> Metrics:
        step = {"init": self._init, "base": self._base, "online": self._online}[kind]
        if not self._in_place:
            self._state, measured = step(self._state, inputs)
            return measured
        if kind not in self._graphs:
            on_gpu = next(iter(self._state.theta.values())).is_cuda
            self._graphs[kind] = Graphed(step, self._state, capture=on_gpu)
        return self._graphs[kind](inputs)

    def _end(self) -> LearnerState:
        return clone_state(self._state) if self._in_place else self._state

    def _init(self, state: LearnerState, inputs: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        config, replicate = self._config, self._replicate
        given = iter(inputs)
        theta = {name: next(given) for name in replicate.start.theta}
        buffers = {name: next(given) for name in replicate.start.buffers}
        *train, last = zip(given, given, strict=True)
        new, loss = init_step(
            replicate.problem,
            state,
            theta,
            buffers,
            train,
            last,
            lr=config.learner.optimizer.lr,
            eta=config.meta.eta_init,
            estimator=replicate.estimator,
            meta_optimizer=replicate.meta_optimizer,
            clip_norm=config.meta.clip_norm,
        )
        return new, {"meta_loss": loss}

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
