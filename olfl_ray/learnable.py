"""A learnable: what is meta-learned, and where it enters a base step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from safetensors.torch import save
from torch import Tensor, nn

__all__ = ["BaseOptimizer", "Learnable", "Params"]

Params = Mapping[str, Tensor]
"""Tensors by name: theta, its gradient, or an optimizer's state."""


class BaseOptimizer(Protocol):
    """The base learner's optimizer, as `update` of a learnable is given it."""

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """theta' and its state after a step, differentiable; a parameter without a gradient stays as it is."""


class Learnable(nn.Module):
    """Its parameters are phi. phi enters a base step at four points, the hooks; each has the default of plain training.

    A subclass overrides only the hooks that it changes; `Learnable()` itself is plain training. The engine places phi in the module
    before it calls a hook, and differentiates through the call. Only `loss` may write to buffers, once per step.
    """

    def start(self, theta: Params) -> Params:
        """theta_0, where training starts. Default: the base learner's own initial weights.

        Args:
            theta: The trainable parameters as the base learner was built, by name.

        Returns:
            The same names and shapes.
        """
        return theta

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """What theta is trained on, a scalar. Default: the task loss.

        Args:
            outputs: Raw outputs (B, C) of the base learner.
            targets: As the task gives them.
        """
        raise NotImplementedError  # the engine takes the task loss where no subclass overrides this

    def penalty(self, theta: Params) -> Tensor:
        """What is added to the loss that theta is trained on, a scalar. Default: nothing.

        Args:
            theta: The trainable parameters, by name.
        """
        raise NotImplementedError  # the engine calls only a penalty that a subclass has

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """theta' and the optimizer's state after a step. Default: the optimizer's own step.

        Args:
            optimizer: The base optimizer; its `update` is differentiable.
            theta: The trainable parameters.
            g: The gradients of those that have one.
            state: The optimizer's state.
            lr: Base learning rate alpha, with its schedule.
        """
        return optimizer.update(theta, g, state, lr)

    def forward(self, outputs: Tensor, targets: Any) -> Tensor:
        """A learnable that has a loss is called as a loss is."""
        return self.loss(outputs, targets)

    def measured(self, lr: float) -> dict[str, float]:
        """Numbers that are recorded at each evaluation, as metrics of these names. Default: none.

        Args:
            lr: Base learning rate of the last step, with its schedule.
        """
        return {}

    def files(self) -> dict[str, bytes]:
        """What is learned, as files by name, kept with each checkpoint. Default: phi and the buffers, as safetensors."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return {"learnable.safetensors": save(tensors)} if tensors else {}

    def surface(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What the report draws: targets, outputs, the learned loss and the task loss of each pair (P,). Default: nothing."""
        return None
