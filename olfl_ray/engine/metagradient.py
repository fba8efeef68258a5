"""The meta-gradient of a step, as a pure function of a user's modules and batches."""

from __future__ import annotations

import torch
from torch import nn

from olfl_ray.engine.arguments import check_batch, check_parts, check_state, each_batch
from olfl_ray.engine.attributes import attributes_kept
from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.choice import Memory, choose_estimator
from olfl_ray.engine.estimators.known import Known
from olfl_ray.engine.estimators.probing import probe
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.given import Select, TaskLoss, check_choice, optimizer_of, problem_of, tensors_of
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.state import Estimator, LearnerState, StepResult
from olfl_ray.learnable import Params

__all__ = ["meta_gradient"]

_known = Known()


def meta_gradient(
    module: nn.Module,
    optimizer: Optimizer | torch.optim.Optimizer,
    learned_loss: nn.Module,
    task_loss: TaskLoss,
    train: Batch | list[Batch],
    meta: Batch,
    *,
    lr: float | None = None,
    opt_state: Params | None = None,
    estimator: str = "auto",
    memory: Memory = "auto",
    fresh: bool = False,
    select: Select | None = None,
    unpack: bool = False,
) -> StepResult:
    """One base step (or several) and the gradient of L_T after it with respect to phi; nothing is changed.

    The first call on a module probes it and compares its estimator with a plain loop. Later ones do so again only where the
    learned loss, the task loss, a setting, the form of the batches, or a module's parts, modes, hooks or shapes are others,
    and at one call in 1,000, as `OnlineLossLearner` does. A loss that is a new function at each call is probed at each.

    Args:
        module: Base learner at theta, in train mode.
        optimizer: As of `OnlineLossLearner`.
        learned_loss: M_phi at phi, or any other `Learnable`.
        task_loss: L_T.
        train: One batch, a tuple (inputs, targets), or a list with one batch a base step. Inputs and targets are tensors or
            trees of tensors. A list of two that are not both pairs, as a data loader gives it, is one batch.
        meta: The batch of L_T.
        lr: Base learning rate alpha; only with this package's own optimizers.
        opt_state: State of the base optimizer, as a `StepResult` gives it; None: before the first step.
        estimator: As of `OnlineLossLearner`.
        memory: As of `OnlineLossLearner`.
        fresh: Whether training starts here, so that a learnable's `start` comes before the first step.
        select: As of `OnlineLossLearner`.
        unpack: As of `OnlineLossLearner`.

    Returns:
        `theta`, `buffers` and `opt_state` after the steps; `phi_grad`; the losses. Random numbers (dropout) are drawn.

    Raises:
        SpecError: As of `OnlineLossLearner`.
    """
    check_choice(estimator, memory)
    check_parts(module, learned_loss, task_loss)
    pure, rate = optimizer_of(module, optimizer, lr)
    problem = problem_of(module, pure, learned_loss, task_loss, select=select, unpack=unpack)
    batches = each_batch(train)
    for batch in batches:
        check_batch("train", batch, module)
    check_batch("meta", meta, module)
    theta, buffers, phi = tensors_of(module, learned_loss)
    state: Params = pure.init(theta)
    if opt_state is not None:
        check_state("opt_state", opt_state, state)
        state = opt_state

    def choose() -> Estimator:
        probe(problem, batches[0], meta)
        return choose_estimator(estimator, memory, len(batches), problem, batches[0])

    now = pure.now() if isinstance(pure, Followed) else pure
    settings = (now, estimator, memory, unpack)
    chosen = _known.estimator(problem, settings, [*batches, meta], choose)
    with attributes_kept(module, learned_loss, task_loss):
        at = LearnerState(
            theta=theta,
            buffers=buffers,
            opt_state=dict(state),
            phi=phi,
            meta_state={},
            loss_buffers=problem.loss_buffers(),
        )
        return chosen(problem, at, rate(), batches, meta, fresh=fresh)
