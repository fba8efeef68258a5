"""From a trial's settings to its parts: data, base learner, losses, optimizers; and their validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray import data, models
from olfl_ray.data import TaskData
from olfl_ray.engine import (
    Batch,
    Carrier,
    Estimator,
    LearnerState,
    Optimizer,
    Problem,
    arithmetic,
    base_step,
    carrying,
    choose_estimator,
    drawn,
    optimizer_for,
    reverse,
)
from olfl_ray.errors import DataError, SpecError, UserError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import check_standardised, task_loss
from olfl_ray.memory import refuse_too_large
from olfl_ray.methods import Method, Setting, method_of
from olfl_ray.plugins import digest_of_code, nearest
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.tasks import Goal, Metric, Task, metrics_of
from olfl_ray.trial.base import Factor, base_optimizer, initial_state, meta_optimizer, schedule_of
from olfl_ray.trial.chunks import examples_at_once
from olfl_ray.trial.environment import TrialEnvironment

__all__ = [
    "Replicate",
    "arithmetic_of",
    "batches_of",
    "build_replicate",
    "code_of",
    "load_data",
    "refuse_unfit",
    "set_threads",
    "splits_of",
]


STEP_COPIES, COMPARED_COPIES = 5, 10
"""How often the parameters are held at once, at least: by a step on the task loss; by the comparison that precedes the first
step on a learned loss, which holds the gradients of both sides."""


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One replicate's fixed parts.

    Args:
        seed: Its seed.
        data: Its batches.
        problem: Base learner, losses, optimizer.
        task: What is predicted.
        metrics: What is measured on a split: the task's metrics, then the user's.
        outputs: C, outputs of the base learner.
        method: What is meta-learned, and when.
        learnable: The problem's own.
        rebuild: The base learner with other initial weights, by their seed.
        estimator: Of the meta-gradient.
        meta_optimizer: Of phi.
        schedule: Of the base learning rate.
        start: Its learner before the first step.
        chunk: Examples that are evaluated at once.
        phis: Values that phi takes during training, each with the fraction of the steps after which it does.
        episode: The data of a round of Algorithm 1: its own, or of a family another task for each round.
    """

    seed: int
    data: data.TaskData
    problem: Problem
    task: Task
    metrics: Sequence[Metric]
    outputs: int
    method: Method
    learnable: Learnable
    rebuild: Callable[[int], nn.Module]
    estimator: Estimator
    meta_optimizer: Optimizer
    schedule: Factor
    start: LearnerState
    chunk: int
    episode: Callable[[int], TaskData]
    phis: Sequence[tuple[float, Params]] = ()

    def at(self, done: float, learner: LearnerState) -> LearnerState:
        """The learner with the phi of this fraction of the steps; as it is where the method gives none."""
        phis = [phi for since, phi in self.phis if since <= done] or [phi for _, phi in self.phis[:1]]
        return replace(learner, phi=dict(phis[-1])) if phis else learner


def build_replicate(config: TrialConfig, environment: TrialEnvironment, dataset: data.Dataset, seed: int) -> Replicate:
    """Build one replicate. The same seed gives the same split, initial weights and batches in every arm.

    Raises:
        UserError: A name, shape or option does not fit.
    """
    task, kind = config.task, dataset.kind
    predicted = dataset.task
    metrics = metrics_of(predicted, task.metrics, dataset.output_names)
    _check_metric(config, metrics, kind)
    family = dataset.episode is not None
    batches = batches_of(config, environment, data.episode(dataset, seed_of(seed, "task")), seed, whole=family)

    def episode(index: int) -> TaskData:
        if not family:
            return batches
        return batches_of(config, environment, data.episode(dataset, seed_of(seed, "episode", index)), seed, whole=True)

    shapes: dict[str, Any] = {"input_shape": batches.input_shape, "outputs": dataset.outputs}
    method = method_of(config.learner)
    refuse_unfit(config, environment, dataset)
    build = partial(
        models.build,
        task.model.name,
        task.model.options,
        **shapes,
        ids=batches.ids,
        largest_id=batches.largest_id,
        heads=dataset.heads,
    )
    module = build(seed=seed_of(seed, "weights"))
    module = module.to(environment.device).train()
    setting = Setting(
        config=config,
        kind=kind,
        task=predicted,
        outputs=dataset.outputs,
        theta=_theta(module),
        seed=seed_of(seed, "phi"),
        losses=environment.losses,
    )
    loss = task_loss(task.loss, predicted)
    if batches.target_scale is not None and ":" in task.loss:
        check_standardised(loss, task.loss, dataset.outputs, environment.device)
    select = predicted.packed if dataset.heads else None
    carries = partial(carrying, base_loss=method.base_loss(setting, loss), task_loss=loss, select=select)
    module, base_loss, carried_loss = carries(module)
    module = module.to(environment.device)
    setting = replace(setting, theta=_theta(module))
    learnable = method.learnable(setting).to(environment.device)
    problem = Problem(
        module=module,
        learned=learnable,
        task_loss=carried_loss,
        base_loss=base_loss,
        optimizer=optimizer_for(module, base_optimizer(config)),
        draws_random=False,
        precision=config.learner.precision,
        select=None if isinstance(module, Carrier) else select,
    )
    if problem.hooks.loss and isinstance(module, Carrier):
        raise SpecError(
            "learner.method",
            f"is {config.learner.method}, which learns the loss, but the task loss has parameters that only training on it "
            "would change; use a task loss without parameters, or a method that does not learn the loss",
        )
    theta, meta = problem.theta(), meta_optimizer(config)
    if not theta:
        raise SpecError("task.model", f"{task.model.name!r} has no parameters that require a gradient; give it some")
    phi = problem.phi()
    start = LearnerState(
        theta=theta,
        buffers=problem.buffers(),
        opt_state=initial_state(problem.optimizer, theta),
        phi=phi,
        meta_state=meta.init(phi) if phi else {},
        loss_buffers=problem.loss_buffers(),
    )
    draws_random, draws_python = _try_step(problem, start, batches)
    problem = replace(problem, draws_random=draws_random, draws_python=draws_python)
    return Replicate(
        seed=seed,
        data=batches,
        problem=problem,
        task=predicted,
        metrics=metrics,
        outputs=dataset.outputs,
        method=method,
        learnable=learnable,
        rebuild=lambda weights: carries(build(seed=weights, check=False))[0].to(environment.device),
        estimator=_estimator(config, problem, batches.batch("probe", "train", 0)),
        meta_optimizer=meta,
        schedule=schedule_of(config),
        start=start,
        chunk=examples_at_once(problem, batches.batch("probe", "train", 0)[0][:2], task.batch_size),
        phis=[
            (since, {name: value.to(environment.device) for name, value in phi.items()})
            for since, phi in method.phis(setting)
        ],
        episode=episode,
    )


def _theta(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name."""
    return {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}


def _estimator(config: TrialConfig, problem: Problem, batch: Batch) -> Estimator:
    """The estimator of the meta-gradient. A learned loss without parameters needs none."""
    if (problem.hooks.gradient or problem.hooks.start) and not problem.phi():
        return reverse
    return choose_estimator(config.meta.estimator, config.meta.memory, config.meta.inner_steps, problem, batch)


def splits_of(config: TrialConfig, dataset: data.Dataset, seed: int) -> data.Splits:
    """The four splits of a replicate's data set, or of an episode.

    Raises:
        DataError: A split would be empty.
    """
    sizes = config.task.split
    return data.split(
        dataset,
        study_seed=config.study_seed,
        seed=seed_of(seed, "split"),
        test=sizes.test,
        meta=sizes.meta,
        selection=sizes.selection,
    )


def batches_of(
    config: TrialConfig, environment: TrialEnvironment, dataset: data.Dataset, seed: int, *, whole: bool
) -> TaskData:
    """The batches of a replicate's data set, or of an episode."""
    task = config.task
    return TaskData(
        dataset,
        splits_of(config, dataset, seed).trained_on(method_of(config.learner).trained_on),
        device=environment.device,
        augment=task.augment,
        batch_size=task.batch_size,
        seed=seed_of(seed, "batches"),
        whole=whole,
        standardize_x=task.standardize.x,
        standardize_y=task.standardize.y,
    )


def refuse_unfit(
    config: TrialConfig, environment: TrialEnvironment, dataset: data.Dataset, free: int | None = None
) -> None:
    """Refuse a base learner whose parameters a step can't hold; a trial that was accepted depends on no memory that is free."""
    model, method = config.task.model, method_of(config.learner)
    shape = tuple(dataset.x.shape[1:])
    copies = COMPARED_COPIES if method.before or method.during else STEP_COPIES
    copies = copies if environment.device == "cpu" else 1
    size = models.bytes_of(model.name, model.options, input_shape=shape, outputs=dataset.outputs, heads=dataset.heads)
    needed = copies * size
    refuse_too_large(needed, f"a step of {model.name} with these options", "task.model", free)


def _check_metric(config: TrialConfig, metrics: Sequence[Metric], kind: str) -> None:
    """Refuse a study's metric that its task does not measure, or whose better end is the other one."""
    goals: dict[str, Goal] = {names.TASK_LOSS: "minimize", **{metric.name: metric.goal for metric in metrics}}
    name = names.metric_of(config.metric)
    if name not in goals:
        known = list(goals)
        raise SpecError(
            "search.metric",
            f"is {config.metric}, but {kind} measures {', '.join(known)}{nearest(name, known)}; use selection/NAME of one "
            "of them, or name your own in task.metrics",
        )
    if goals[name] != config.goal:
        raise SpecError(
            "search.goal",
            f"is {config.goal}, but {config.metric} is better the {'lower' if goals[name] == 'minimize' else 'higher'} it "
            f"is; set search.goal: {goals[name]}",
        )


def _try_step(problem: Problem, start: LearnerState, batches: data.TaskData) -> tuple[bool, bool]:
    """Take one step that is thrown away; whether it drew random numbers (dropout), and whether from Python's generator.

    Raises:
        SpecError: The model and the losses do not fit the data, or no gradient comes through them.
    """
    batch = batches.batch("probe", "train", 0)
    apart = replace(start, theta={name: p.clone() for name, p in start.theta.items()})
    try:
        with problem.unchanged():
            return drawn(lambda: base_step(problem, apart, batch, 0.0), batch[0].device)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise SpecError(
            "task",
            f"no step can be taken with this model, task loss and learned loss on this data: {type(error).__name__}: "
            f"{error}; check that outputs, targets and losses have matching shapes and that nothing detaches the gradient",
        ) from error


def load_data(config: TrialConfig, environment: TrialEnvironment) -> data.Dataset:
    """The data set of a trial.

    Raises:
        UserError: It can't be loaded, or its content differs from that at the study's start.
    """
    named = config.task.dataset
    found = data.load(
        named.name, named.options, cache=environment.cache, root=environment.data_root, wanted=environment.data
    )
    if environment.data and found.fingerprint != environment.data:
        raise DataError(
            f"task.dataset: {named.name} has different content here (digest {found.fingerprint[:12]}) than where the study "
            f"began ({environment.data[:12]}), so its results can't be compared; make it the same everywhere (a builder that "
            "draws random numbers needs a fixed seed)"
        )
    return data.for_task(found, config.task.options)


def code_of(config: TrialConfig, kind: str) -> dict[str, str]:
    """Digest of each module that a `package.module:builder` of a trial's settings, or its task, comes from."""
    task = config.task
    found = [task.dataset.name] if data.is_builder(task.dataset.name) else []
    found += [kind, task.model.name, task.loss, *(metric.name for metric in task.metrics)]
    learner = config.learner
    found += [learner.method, learner.optimizer.name, learner.schedule.name]
    uses = method_of(learner).uses
    if "loss" in uses:
        found.append(config.loss.name)
    found += [getattr(config.meta, name) for name in ("estimator", "optimizer") if {"meta", f"meta.{name}"} & set(uses)]
    return dict(digest_of_code(name) for name in found if ":" in name)


def arithmetic_of(config: TrialConfig) -> AbstractContextManager[None]:
    """How a trial's products are rounded, and whether its sums have one order."""
    return arithmetic(config.learner.precision, deterministic=config.learner.deterministic)


def set_threads(count: int) -> None:
    """Threads of this process; they decide how sums are split, and so the last bits of a result."""
    torch.set_num_threads(count)
