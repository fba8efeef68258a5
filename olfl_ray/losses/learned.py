"""Learned losses M_phi(y, f(x)) = reduce_i l_phi(y_i, f(x)_i), mean over the batch (docs/method.md)."""

# B batch, C outputs, P grid points

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from olfl_ray.learnable import Learnable
from olfl_ray.losses.roles import check_order
from olfl_ray.losses.slopes import DERIVATIVES, pair_slopes
from olfl_ray.losses.unchanged import AsBuilt
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.tasks import task_of

__all__ = ["LearnedLoss", "LossNetwork"]


class LossNetwork(nn.Module):
    """l_phi : R^2 -> R, a small perceptron of (target, output).

    Args:
        hidden: Units of the hidden layers.
        activation: Hidden activation.
        softplus_output: Softplus on the output, which makes the loss positive.
        bias: Biases in every layer.
        init: Initial weights: kaiming_normal or xavier_uniform; biases start at 0.
    """

    def __init__(
        self, hidden: tuple[int, ...], activation: nn.Module, *, softplus_output: bool, bias: bool, init: str
    ) -> None:
        super().__init__()
        sizes = [2, *hidden, 1]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            linear = nn.Linear(inputs, outputs, bias=bias)
            if init == "kaiming_normal":
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)
            layers.append(linear)
            if index < len(hidden):
                layers.append(activation)
        if softplus_output:
            layers.append(nn.Softplus())
        self.layers = nn.Sequential(*layers)

    def parts(self) -> tuple[list[int], list[nn.Module | None]]:
        """Positions of the linear layers in `layers`, and what follows each; None: nothing."""
        linear = [index for index, layer in enumerate(self.layers) if isinstance(layer, nn.Linear)]
        after = [self.layers[index + 1] if index + 1 < len(self.layers) else None for index in linear]
        return linear, after

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """l_phi, elementwise.

        Args:
            output: f(x)_i, any shape.
            target: y_i, the same shape.

        Returns:
            The loss of each pair, the same shape.
        """
        pairs_N2 = torch.stack((target.reshape(-1), output.reshape(-1)), dim=1)
        value: Tensor = self.layers(pairs_N2)
        return value.reshape(output.shape)


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
        self._plain = AsBuilt(self) if type(self) is LearnedLoss and _has_closed_form(network) else None

    def forward(self, outputs_BC: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch of the reduced elementwise loss.

        Args:
            outputs_BC: Raw outputs (logits) of the base learner; more dimensions before the last count as batch.
            targets: Class indices (B,) for classification, targets (B, C) for regression.
        """
        loss_BC: Tensor = self.network(*self.task.pairs(outputs_BC, targets))
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
        network: Any = self.network
        linear, activations = network.parts()
        prefix = "network.layers"

        def tensor(index: int, name: str) -> Any:
            own = getattr(network.layers[index], name)
            return phi.get(f"{prefix}.{index}.{name}", own)  # a frozen one is no part of phi

        weights = [tensor(index, "weight") for index in linear]
        biases = [tensor(index, "bias") for index in linear]
        inputs_BC, targets = self.task.pairs(outputs_BC, targets)
        loss_N, slope_N, along_phi = pair_slopes(
            weights, biases, activations, targets.reshape(-1), inputs_BC.reshape(-1)
        )
        outputs = outputs_BC.shape[-1]
        scale = 1 / (outputs_BC.numel() // outputs) / (outputs if self.reduction == "mean" else 1)
        df_BC = self.task.pull(inputs_BC, slope_N.reshape(outputs_BC.shape).mul(scale))

        @torch.no_grad()
        def gradient(u_BC: Tensor) -> dict[str, Tensor]:
            t_BC = self.task.pull(inputs_BC, u_BC)
            found = along_phi(t_BC.reshape(-1).mul(scale))
            grads = {}
            for index, (weight, bias) in zip(linear, found, strict=True):
                grads[f"{prefix}.{index}.weight"], grads[f"{prefix}.{index}.bias"] = weight, bias
            return {name: grads[name] for name in phi}

        return loss_N.sum() * scale, df_BC, gradient

    def files(self) -> dict[str, bytes]:
        """`learned_loss.safetensors` with phi, and `learned_loss.json` with what this was built from.

        Raises:
            ValueError: It was built without settings.
        """
        if self.settings is None:
            raise ValueError("a learned loss can be kept in files where it was built from settings; use build_loss")
        own = self.settings.model_dump(mode="json", by_alias=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return {
            "learned_loss.safetensors": save(tensors),
            "learned_loss.json": json.dumps({"format": 1, "kind": self.kind, "loss": own}, indent=2).encode(),
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
    """Whether it is layers of `LossNetwork`, each as that class builds them."""
    if type(network) is not LossNetwork or type(network.layers) is not nn.Sequential:
        return False
    kinds = [type(layer) for layer in network.layers]
    return set(kinds[::2]) == {nn.Linear} and set(kinds[1::2]) <= set(DERIVATIVES)
