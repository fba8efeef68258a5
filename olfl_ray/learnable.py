"""A learnable: what is meta-learned, and where it enters a base step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

__all__ = ["BaseOptimizer", "Learnable", "Params"]

Params = Mapping[str, Tensor]
"""Tensors by name: theta, its gradient, or an optimizer's state."""


class BaseOptimizer(Protocol):
    """The base learner's optimizer, as passed to `Learnable.update`."""

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return theta' and the optimizer's state after one differentiable step; a parameter without a gradient is unchanged."""

    def metric(self, state: Params, names: Iterable[str]) -> dict[str, Tensor]:
        """The diagonal metric in which the step that led to a state descends, by parameter name; a name without one has 1."""


class Learnable(nn.Module):
    """A module whose parameters are phi. phi enters a base step through four hooks; by default each leaves training plain.

    A subclass overrides only the hooks that it changes; `Learnable()` itself is plain training. The engine sets the module's
    parameters to phi before it calls a hook, and differentiates through the call. Only `loss` may write to buffers, once a step.
    """

    seen: Tensor | None = None
    """What training has shown it, such as a range; a tensor that it updates in place, and that a trial's state keeps."""

    def start(self, theta: Params) -> Params:
        """theta_0, where training starts. Default: the base learner's own initial weights.

        Args:
            theta: The trainable parameters as the base learner was built, by name.

        Returns:
            The same names and shapes.
        """
        return theta

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The loss that theta is trained on, a scalar. Default: the task loss.

        Args:
            outputs: Raw outputs (B, C) of the base learner.
            targets: The batch's targets, in the form of the task.
        """
        raise NotImplementedError  # the engine uses the task loss unless a subclass overrides this

    def penalty(self, theta: Params) -> Tensor:
        """A scalar that is added to the loss that theta is trained on. Default: none.

        Args:
            theta: The trainable parameters, by name.
        """
        raise NotImplementedError  # the engine calls this only if a subclass overrides it

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return theta' and the optimizer's state after one step. Default: the optimizer's own step.

        Args:
            optimizer: The base optimizer; its `update` is differentiable.
            theta: The trainable parameters.
            g: The gradients of the parameters that have one.
            state: The optimizer's state.
            lr: Base learning rate alpha, with its schedule.
        """
        return optimizer.update(theta, g, state, lr)

    def forward(self, outputs: Tensor, targets: Any) -> Tensor:
        """Call `loss`, so that a learnable can be called like a loss module."""
        return self.loss(outputs, targets)

    def measured(self, lr: float) -> dict[str, float]:
        """Return extra metrics to record at each evaluation, by name. Default: none.

        Args:
            lr: Base learning rate of the last step, with its schedule.
        """
        return {}

    def describe(self, theta: Params) -> dict[str, float]:
        """Return extra metrics of weights, by name, recorded on each split next to the task's metrics. Default: none.

        Args:
            theta: The trainable parameters, by name.
        """
        return {}

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return extra metrics of a full split, by name, recorded next to the task's metrics. Default: none.

        Args:
            outputs: Raw outputs (N, C); if the task tunes thresholds, minus these.
            targets: Targets of the split, as the task scales them.
        """
        return {}

    def files(self) -> dict[str, bytes]:
        """Return the files to store with each checkpoint, by name. Default: phi and the buffers, as safetensors."""
        from safetensors.torch import save  # the engine needs torch alone

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return {"learnable.safetensors": save(tensors)} if tensors else {}

    def surface(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return what the report plots: targets, outputs, learned loss and task loss of each pair (P,). Default: nothing."""
        return None
