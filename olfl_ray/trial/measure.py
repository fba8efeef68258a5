"""What is measured of a trial: errors on a split, the learned loss on a grid, the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import psutil
import torch
from torch import Tensor

from olfl_ray.engine import Batch, LearnerState
from olfl_ray.engine.problem import leaves
from olfl_ray.records import Surface, names
from olfl_ray.trial.build import Replicate

__all__ = ["evaluate", "gradients", "surfaces", "system"]


def evaluate(
    replicate: Replicate,
    theta: dict[str, Tensor],
    buffers: dict[str, Tensor],
    part: Literal["selection", "test"],
    kind: str,
) -> dict[str, float]:
    """Task loss and error on a split; of a regression in scaled units, and its root in the target's own.

    A classifier's task loss is NaN where an output is not finite: the error alone would hide it.
    """
    chunks = [
        (replicate.problem.predict(theta, buffers, x, replicate.chunk), y)
        for x, y in replicate.data.chunks(part, replicate.chunk)
    ]
    outputs, y = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    values = {f"{part}/task_loss": replicate.problem.task_loss(outputs, y).item()}
    if kind == "classification":
        values[f"{part}/error"] = (outputs.argmax(-1) != y).double().mean().item()
        if not torch.isfinite(outputs).all():
            values[f"{part}/task_loss"] = math.nan
        return values
    squared = (outputs.double() - y.double()) ** 2
    values[f"{part}/error"] = squared.mean().item()
    scale = replicate.data.target_scale
    assert scale is not None
    values[f"{part}/rmse_original_units"] = (squared * scale.double() ** 2).mean().sqrt().item()
    return values


def gradients(replicate: Replicate, learner: LearnerState, batch: Batch) -> dict[str, float]:
    """How the gradient that theta follows stands to the task loss's: a learned loss's implicit learning-rate schedule."""
    problem, (x, y) = replicate.problem, batch
    theta = leaves(learner.theta)
    with problem.train_pass(theta, learner.buffers, x) as (outputs, _):
        task_df, df = (
            torch.autograd.grad(loss(outputs, y), outputs, retain_graph=True)[0]
            for loss in (problem.task_loss, problem.base_loss)
        )
        if problem.learned is not None:
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
    norm, task_norm, product = own.norm().item(), task.norm().item(), (own @ task).item()
    return {
        names.TRAIN_GRAD_NORM: norm,
        names.TRAIN_TASK_GRAD_NORM: task_norm,
        names.TRAIN_GRAD_COSINE: product / (norm * task_norm) if norm * task_norm != 0 else 0.0,
    }


def surfaces(replicates: list[Replicate], learners: Sequence[LearnerState], step: int) -> tuple[Surface, ...]:
    """Each replicate's learned loss on a grid of (output, target); none where nothing is learned."""
    found = []
    for index, (replicate, own) in enumerate(zip(replicates, learners, strict=True)):
        learned = replicate.learned
        if learned is None:
            continue
        before = {name: value.detach().clone() for name, value in learned.state_dict().items()}
        learned.load_state_dict({**own.phi, **own.loss_buffers}, strict=False)
        target, output, value, task = (tuple(column.tolist()) for column in learned.surface())
        learned.load_state_dict(before)
        found.append(Surface(step=step, replicate=index, target=target, output=output, learned=value, task=task))
    return tuple(found)


def system() -> dict[str, tuple[float, ...]]:
    """Memory of this process and of its device, in MB."""
    found: dict[str, tuple[float, ...]] = {names.SYSTEM_MEMORY_MB: (psutil.Process().memory_info().rss / 1e6,)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found[names.SYSTEM_DEVICE_MEMORY_MB] = (torch.cuda.max_memory_allocated() / 1e6,)
    return found
