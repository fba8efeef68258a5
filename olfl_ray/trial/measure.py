"""A trial's measurements: metrics on a split, the learned loss on a grid, the machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import psutil
import torch
from torch import Tensor

from olfl_ray.data import Dataset
from olfl_ray.engine import Batch, LearnerState, completed
from olfl_ray.engine.problem import leaves
from olfl_ray.learnable import Learnable
from olfl_ray.records import Surface, names
from olfl_ray.tasks import Metric, Task, TaskLoss
from olfl_ray.trial.build import Replicate

__all__ = [
    "class_sizes",
    "constant_metrics",
    "evaluate",
    "evaluate_trivial",
    "gradients",
    "learned_now",
    "surfaces",
    "system",
]


def evaluate(
    replicate: Replicate,
    theta: dict[str, Tensor],
    buffers: dict[str, Tensor],
    part: Literal["selection", "test"],
) -> dict[str, float]:
    """The task loss and the task's metrics on a full split, NaN if an output is not finite; what the method measures."""
    outputs, y = _predicted(replicate, theta, buffers, part)
    loss = replicate.problem.task_loss(outputs, y).item()
    outputs = outputs[..., : replicate.outputs]  # a loss's parameters may follow
    thresholds = None
    if replicate.task.tuned:
        held, held_y = (outputs, y) if part == "selection" else _predicted(replicate, theta, buffers, "selection")
        thresholds = replicate.task.thresholds(held[..., : replicate.outputs], held_y)
    found = _measured(loss, outputs, y, replicate.metrics, replicate.data.target_scale, thresholds)
    described = replicate.problem.optimizer.describe(theta) | replicate.learnable.describe(theta)
    decided = outputs if thresholds is None else outputs - thresholds
    described |= replicate.learnable.scores(decided, y)
    return {f"{part}/{name}": value for name, value in (found | described).items()}


def _predicted(
    replicate: Replicate, theta: dict[str, Tensor], buffers: dict[str, Tensor], part: Literal["selection", "test"]
) -> tuple[Tensor, Tensor]:
    """Raw outputs and targets of a full split."""
    chunks = [
        (replicate.problem.predict(theta, buffers, x, replicate.chunk), y)
        for x, y in replicate.data.chunks(part, replicate.chunk)
    ]
    outputs, y = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return outputs, y


def evaluate_trivial(replicate: Replicate) -> dict[str, float]:
    """The same for the best constant prediction, on the test split."""
    problem = replicate.problem
    found = constant_metrics(
        replicate.task,
        replicate.metrics,
        lambda outputs, y: problem.task_loss(completed(problem.module, outputs), y),
        replicate.data.targets("train"),
        replicate.data.targets("selection"),
        replicate.data.targets("test"),
        outputs=replicate.outputs,
        scale=replicate.data.target_scale,
    )
    return {names.TRIVIAL_PREFIX + name: value for name, value in found.items()}


def constant_metrics(
    task: Task,
    metrics: Iterable[Metric],
    loss: TaskLoss | None,
    train: Tensor,
    selection: Tensor,
    y: Tensor,
    *,
    outputs: int,
    scale: Tensor | None,
) -> dict[str, float]:
    """The task loss and metrics of the best constant prediction, by name; NaN if that prediction is not finite.

    Args:
        task: The task.
        metrics: The metrics.
        loss: The task loss; None: it is not measured.
        train: Targets of the train split, as scaled by the task.
        selection: Targets of the validation split, for the task's thresholds.
        y: Targets of the split that is measured.
        outputs: C, outputs of a base learner.
        scale: Scale (C,) by which the targets were divided; None: they are not scaled.
    """
    constant = task.trivial(train, len(y), outputs).to(y.device)
    thresholds = task.thresholds(task.trivial(train, len(selection), outputs).to(y.device), selection)
    return _measured(None if loss is None else float(loss(constant, y)), constant, y, metrics, scale, thresholds)


def class_sizes(task: Task, dataset: Dataset) -> list[int]:
    """Number of examples of each class or label; empty if the targets are neither. A negative target is in no class."""
    counts = None if dataset.y.dim() > 2 else task.counts(dataset.y, dataset.outputs)
    return [] if counts is None else counts.tolist()


def _measured(
    loss: float | None,
    outputs: Tensor,
    y: Tensor,
    metrics: Iterable[Metric],
    scale: Tensor | None,
    thresholds: Tensor | None,
) -> dict[str, float]:
    values = {} if loss is None else {names.TASK_LOSS: loss}
    finite = bool(torch.isfinite(outputs).all())
    shifted = outputs if thresholds is None else outputs - thresholds
    for metric in metrics:
        measured = shifted if metric.decides else outputs
        values[metric.name] = metric.compute(measured, y, scale) if finite else math.nan
    return values if finite else dict.fromkeys(values, math.nan)


def gradients(replicate: Replicate, learner: LearnerState, batch: Batch) -> dict[str, float]:
    """How the gradient that theta follows relates to the task loss's: a learned loss's implicit learning-rate schedule."""
    problem, (x, y) = replicate.problem, batch
    theta = leaves(learner.theta)
    with problem.train_pass(theta, learner.buffers, x) as (outputs, _):
        task_df, df = (
            torch.autograd.grad(loss(outputs, y), outputs, retain_graph=True)[0]
            for loss in (problem.task_loss, problem.base_loss)
        )
        if problem.hooks.loss:
            _, df, *_ = problem.outputs_gradient(learner.phi, learner.loss_buffers, outputs, y)
        task, own = (
            torch.cat(
                [
                    part.flatten().double()
                    for part in torch.autograd.grad(
                        outputs, list(theta.values()), seed, retain_graph=True, materialize_grads=True
                    )
                ]
            )
            for seed in (task_df, df)
        )
    if problem.hooks.penalty:
        _, also = problem.penalty_gradient(learner.phi, learner.loss_buffers, theta)
        parts = [also.get(name, torch.zeros_like(value)) for name, value in theta.items()]
        own = own + torch.cat([part.flatten().double() for part in parts])
    norm, task_norm, product = own.norm().item(), task.norm().item(), (own @ task).item()
    return {
        names.TRAIN_GRAD_NORM: norm,
        names.TRAIN_TASK_GRAD_NORM: task_norm,
        names.TRAIN_GRAD_COSINE: product / (norm * task_norm) if norm * task_norm != 0 else 0.0,
    }


@contextmanager
def learned_now(replicate: Replicate, learner: LearnerState) -> Iterator[Learnable]:
    """The replicate's learnable with a learner's phi and buffers."""
    with replicate.problem.loss_placed(learner.phi, learner.loss_buffers):
        yield replicate.learnable


def surfaces(replicates: list[Replicate], learners: Sequence[LearnerState], step: int) -> tuple[Surface, ...]:
    """Each replicate's learned loss on a grid of (output, target); empty if the learnable has no surface."""
    found = []
    for index, (replicate, own) in enumerate(zip(replicates, learners, strict=True)):
        with learned_now(replicate, own) as learnable:
            drawn = learnable.surface()
        if drawn is None:
            continue
        target, output, value, task = (tuple(column.tolist()) for column in drawn)
        found.append(Surface(step=step, replicate=index, target=target, output=output, learned=value, task=task))
    return tuple(found)


def system() -> dict[str, tuple[float, ...]]:
    """Memory of this process and of its device, in MB."""
    found: dict[str, tuple[float, ...]] = {names.SYSTEM_MEMORY_MB: (psutil.Process().memory_info().rss / 1e6,)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found[names.SYSTEM_DEVICE_MEMORY_MB] = (torch.cuda.max_memory_allocated() / 1e6,)
    return found
