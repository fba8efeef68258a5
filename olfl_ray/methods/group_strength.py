"""The strength lambda of a group penalty on the backbone, as a learnable: through a proximal step, or through a penalised loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine.groups import group_penalty, layers_of, sparsity_metrics
from olfl_ray.engine.proximal import proximal
from olfl_ray.errors import SpecError
from olfl_ray.learnable import BaseOptimizer, Learnable, Params
from olfl_ray.methods.method import Setting

__all__ = ["GroupStrength", "PenaltyStrength", "ProximalStrength", "check_sections"]


def check_sections(setting: Setting, layers: Sequence[str] | None) -> None:
    """Refuse patterns that match nothing, and an optimizer that shrinks the same groups with a strength of its own.

    Raises:
        SpecError: Names the field.
    """
    learner = setting.config.learner
    layers_of(setting.theta, layers, "learner.options.layers")
    if learner.optimizer.options.get("strength"):
        raise SpecError(
            "learner.optimizer.strength",
            f"is {learner.optimizer.options['strength']}, but learner.method: {learner.method} has a strength of its own, so "
            "groups would be shrunk twice; use learner.optimizer: sgd or adam",
        )


class GroupStrength(Learnable):
    """phi is rho, and lambda = softplus(rho): at least 0, whatever a meta-step does.

    Omega = sum_g c_g |w_g| has one group for each input channel of a layer (`olfl_ray.engine.groups`).

    Args:
        initial: lambda at the start.
        layers: Patterns of the names of weights with groups; None: those of the backbone, if the model has one, else all.
        learned: Whether rho is a parameter; a strength that is not is fixed, and may be 0.

    Raises:
        SpecError: A strength to be learned begins at 0, which no rho gives.
    """

    def __init__(self, initial: float, layers: Sequence[str] | None = None, *, learned: bool = True) -> None:
        super().__init__()
        self.layers = None if layers is None else tuple(layers)
        if learned:
            if not initial > 0:
                raise SpecError("strength", f"is {initial!r}, but a strength that is learned must begin above 0")
            self.rho: nn.Parameter | None = nn.Parameter(torch.tensor(initial + math.log(-math.expm1(-initial))))
        else:
            self.rho, self.fixed = None, initial

    def strength(self) -> Tensor | float:
        """lambda."""
        return self.fixed if self.rho is None else F.softplus(self.rho)

    def measured(self, lr: float) -> dict[str, float]:
        """lambda."""
        found = self.strength()
        return {"phi/strength": found.item() if isinstance(found, Tensor) else found}

    def describe(self, theta: Params) -> dict[str, float]:
        """Fractions of zero groups, and of weights in them."""
        return sparsity_metrics(theta, layers_of(theta, self.layers))


class ProximalStrength(GroupStrength):
    """theta' = prox of alpha lambda Omega, after the optimizer's own step and in its metric: zeros are exact.

    dtheta'_g / dlambda = -alpha c_g u_g / |u_g| for a group that lives (D = 1), 0 for a dead one.
    """

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The optimizer's step, then the proximal step."""
        reached = [name for name in layers_of(theta, self.layers) if name in g]
        moved, after = optimizer.update(theta, g, state, lr)
        return proximal(moved, reached, lr, self.strength(), optimizer.metric(after, reached)), after


class PenaltyStrength(GroupStrength):
    """lambda Omega(theta) is added to the loss that theta is trained on; groups become small, but not exactly zero."""

    def penalty(self, theta: Params) -> Tensor:
        """lambda Omega(theta)."""
        return self.strength() * group_penalty(theta, layers_of(theta, self.layers))
