"""The state of a learner, the result of a step with its meta-gradient, and the protocol of estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from olfl_ray.engine.batches import Batch

if TYPE_CHECKING:
    from olfl_ray.engine.problem import Problem

__all__ = ["Estimator", "LearnerState", "StepResult"]


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """Everything that one replicate's training changes.

    Args:
        theta: Parameters of the base learner.
        buffers: Its buffers.
        opt_state: State of the base optimizer.
        phi: Parameters of the learnable; empty if nothing is learned.
        meta_state: State of the meta-optimizer.
        loss_buffers: Buffers of the learnable, which change once per base step.
    """

    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    opt_state: dict[str, Tensor]
    phi: dict[str, Tensor]
    meta_state: dict[str, Tensor]
    loss_buffers: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """All tensors are detached.

    Args:
        theta: Parameters after the steps.
        buffers: Buffers after the last train pass.
        opt_state: State of the base optimizer after the steps.
        loss_buffers: Buffers of the learnable after its pass on the last train batch.
        phi_grad: d L_T(theta') / d phi.
        base_loss: The loss that theta was trained on, before the last step; a scalar.
        task_loss: L_T of the last train batch before its step; a scalar.
        meta_loss: L_T of the meta batch after the steps; a scalar.
    """

    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    opt_state: dict[str, Tensor]
    loss_buffers: dict[str, Tensor]
    phi_grad: dict[str, Tensor]
    base_loss: Tensor
    task_loss: Tensor
    meta_loss: Tensor


class Estimator(Protocol):
    """Computes the meta-gradient of one or several base steps."""

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
        """Take one base step per train batch, and compute the gradient of L_T after them in phi; no argument is changed.

        Args:
            problem: Base learner, learnable, task loss and base optimizer.
            state: The learner before the steps; its meta-optimizer's part is not read.
            lr: Base learning rate alpha.
            train: One batch per base step (S_inner of them).
            meta: The batch of the outer objective.
            fresh: Whether theta is a base learner's initial one, so that the learnable's `start` comes first.

        Returns:
            The state after the steps and the gradient with respect to phi, all detached.
        """
