"""Base optimizers with a proximal step of fixed strength: prox_sgd (closed form), prox_adam (metric form)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from olfl_ray.engine.arguments import check_rate
from olfl_ray.engine.groups import layers_of, sparsity_metrics
from olfl_ray.engine.optimizers import Adam, Optimizer, Sgd
from olfl_ray.engine.proximal import proximal
from olfl_ray.learnable import Params

__all__ = ["ProxAdam", "ProxSgd"]


@dataclass(frozen=True, kw_only=True)
class _Proximal(Optimizer):
    """Another optimizer's step, then theta' = prox of strength * Omega; see `olfl_ray.engine.groups` for Omega.

    Args:
        strength: lambda; 0 is the other optimizer, bit for bit.
        layers: Patterns of the names of weights with groups; None: those of the backbone, if the model has one, else all.
    """

    penalties: ClassVar[tuple[str, ...]] = ("weight_decay", "strength")
    strength: float = 1e-3
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_rate("strength", self.strength)
        super().__post_init__()  # type: ignore[misc]  # of the other optimizer

    def init(self, params: Params) -> dict[str, Tensor]:
        if self.strength > 0:
            layers_of(params, self.layers)  # so that a wrong pattern is found before training
        return super().init(params)  # type: ignore[safe-super]

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if self.strength == 0:
            return super().update(params, grads, state, lr)  # type: ignore[safe-super]
        reached = [name for name in layers_of(params, self.layers) if name in grads]
        moved, after = super().update(params, grads, state, lr)  # type: ignore[safe-super]
        return proximal(moved, reached, lr, self.strength, self.metric(after, reached)), after

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        return super().gradient_factor(lr) if self.strength == 0 else None

    def describe(self, theta: Params) -> dict[str, float]:
        return sparsity_metrics(theta, layers_of(theta, self.layers))


@dataclass(frozen=True, kw_only=True)
class ProxSgd(_Proximal, Sgd):
    """SGD, then w_g max(0, 1 - alpha lambda c_g / |w_g|)."""


@dataclass(frozen=True, kw_only=True)
class ProxAdam(_Proximal, Adam):
    """Adam (AdamW with `decoupled`: step, decay, proximal step), then the proximal step in Adam's metric (root of v) + eps."""
