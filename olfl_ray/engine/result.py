"""The result of one base step with its meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["StepResult"]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """All tensors are detached.

    Args:
        theta: Parameters after the step.
        buffers: Buffers after the train pass.
        opt_state: State of the base optimizer after the step.
        loss_buffers: Buffers of the learned loss after its pass on the train batch.
        phi_grad: d L_T(theta') / d phi; empty where none was requested.
        base_loss: The loss that theta was trained on, before the step; a scalar.
        task_loss: L_T of the train batch before the step; a scalar.
        meta_loss: L_T of the meta batch after the step; None where none was requested.
    """

    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    opt_state: dict[str, Tensor]
    loss_buffers: dict[str, Tensor]
    phi_grad: dict[str, Tensor]
    base_loss: Tensor
    task_loss: Tensor
    meta_loss: Tensor | None
