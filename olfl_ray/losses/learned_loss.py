"""Learned losses M_phi(y, f(x)) = reduce_i l_phi(y_i, f(x)_i), mean over the batch (docs/method.md)."""

# B batch, C outputs, P grid points

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from olfl_ray.learnable import Learnable
from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.losses.roles import check_order
from olfl_ray.losses.seen import nothing_seen, observe, ranges_of
from olfl_ray.losses.unchanged import AsBuilt
from olfl_ray.tasks import task_of

if TYPE_CHECKING:
    from olfl_ray.spec import LearnedLossSpec

__all__ = ["LearnedLoss"]


class LearnedLoss(Learnable):
    """M_phi: takes the base learner's raw outputs and the targets; gives a scalar.

    Args:
        network: l_phi, called with (output, target), elementwise.
        kind: Name of the task, which says what of outputs and targets goes in: of classification softmax probabilities and
            one-hot targets, of regression both as they are.
        reduction: Over the outputs: mean (as in the paper) or sum.
        settings: What the network was built from; a file of the loss needs it.
    """

    def __init__(
        self,
        network: nn.Module,
        kind: str,
        reduction: Literal["mean", "sum"] = "mean",
        settings: LearnedLossSpec | None = None,
    ) -> None:
        super().__init__()
        check_order(network.forward, type(network).__name__, "learned_loss")
        self.task = task_of(kind, "learned_loss")
        self.network, self.kind, self.reduction, self.settings = network, kind, reduction, settings
        self.seen: Tensor = nothing_seen(classes=self.task.classes)
        self.limits: Tensor | None = None  # of a loaded loss, until it has warned
        self.calls = 0  # on a GPU
        self._plain = AsBuilt(self) if type(self) is LearnedLoss and _has_closed_form(network) else None

    def forward(self, outputs_BC: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch of the reduced elementwise loss.

        Args:
            outputs_BC: Raw outputs (logits) of the base learner; more dimensions before the last count as batch.
            targets: Class indices (B,) for classification, targets (B, C) for regression.
        """
        inputs_BC, targets = self.task.pairs(outputs_BC, targets)
        observe(self, inputs_BC, targets)
        loss_BC: Tensor
        if getattr(self.network, "by_output", False):
            index_C = torch.arange(inputs_BC.shape[-1], device=inputs_BC.device)
            loss_BC = self.network(inputs_BC, targets, index_C.expand(inputs_BC.shape))
        else:
            loss_BC = self.network(inputs_BC, targets)
        loss_B = loss_BC.mean(-1) if self.reduction == "mean" else loss_BC.sum(-1)
        return loss_B.mean()

    @torch.no_grad()
    def outputs_gradient(
        self, phi: Mapping[str, Tensor], outputs_BC: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], dict[str, Tensor]]] | None:
        """The loss, its gradient df in the outputs, and the function from u_BC to the gradient of <df, u> in phi.

        Args:
            phi: Parameters of this module by name, instead of its own.
            outputs_BC: As of `forward`.
            targets: As of `forward`.

        Returns:
            None where there is no closed form: of another network or a subclass, after a change to any part (hooks, another
            `forward`, other layers, tied weights) and in autocast. Autograd is right then.
        """
        kind = outputs_BC.device.type
        rounds = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if self._plain is None or not self._plain.holds() or rounds:
            return None
        own = {name.removeprefix("network."): value for name, value in phi.items()}
        network: Any = self.network
        inputs_BC, targets = self.task.pairs(outputs_BC, targets)
        observe(self, inputs_BC, targets)
        loss_N, slope_N, along_phi = network.slopes(own, inputs_BC.reshape(-1), targets.reshape(-1))
        outputs = outputs_BC.shape[-1]
        scale = 1 / (outputs_BC.numel() // outputs) / (outputs if self.reduction == "mean" else 1)
        df_BC = self.task.pull(inputs_BC, slope_N.reshape(outputs_BC.shape).mul(scale))

        @torch.no_grad()
        def gradient(u_BC: Tensor) -> dict[str, Tensor]:
            t_BC = self.task.pull(inputs_BC, u_BC)
            grads = along_phi(t_BC.reshape(-1).mul(scale))
            return {name: grads[name.removeprefix("network.")] for name in phi}

        return loss_N.sum() * scale, df_BC, gradient

    def files(self) -> dict[str, bytes]:
        """`learned_loss.safetensors` with phi, and `learned_loss.json` with its settings and the ranges that it has seen.

        Raises:
            ValueError: It was built without settings.
        """
        if self.settings is None:
            raise ValueError("a learned loss can be kept in files where it was built from settings; use build_loss")
        from safetensors.torch import save  # the engine needs torch alone

        own = self.settings.model_dump(mode="json", by_alias=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        seen = ranges_of(self.seen)
        kept = {"format": 2, "kind": self.kind, "loss": own} | ({"seen": seen} if seen is not None else {})
        return {
            "learned_loss.safetensors": save(tensors),
            "learned_loss.json": json.dumps(kept, indent=2).encode(),
        }

    @torch.no_grad()
    def surface(self, points: int = 41) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The learned loss on a grid, next to the task loss of each output.

        Returns:
            target_P, output_P, learned_P, task_P. Classification: targets 0 and 1 over probabilities; the task loss is
            -y log p. Regression: targets -1, 0, 1 over outputs in [-3, 3], in scaled units; the task loss is (y - f)^2.
        """
        some = next(self.network.parameters(), torch.zeros(()))
        levels, line = self.task.grid(points)
        grid = torch.cartesian_prod(levels, line).to(device=some.device, dtype=some.dtype)
        target_P, output_P = grid[:, 0], grid[:, 1]
        return target_P, output_P, self.network(output_P, target_P), self.task.drawn(output_P, target_P)


def _has_closed_form(network: nn.Module) -> bool:
    """Whether its class offers one that holds for its own `forward`, not for that of the class above it."""
    if not isinstance(network, ElementwiseLoss) or not network.closed:
        return False
    forward, slopes = (
        next(kind for kind in type(network).__mro__ if name in vars(kind)) for name in ("forward", "slopes")
    )
    return forward is slopes
