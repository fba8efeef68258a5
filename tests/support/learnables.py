"""Learnables for the contract suite: each hook alone, and all of them together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.learnable import BaseOptimizer, Learnable, Params

Theta = dict[str, Tensor]


class Start(Learnable):
    """An offset of each parameter, and a common factor of all."""

    def __init__(self, theta: Theta) -> None:
        super().__init__()
        self.offsets = nn.ParameterList(0.1 * torch.randn_like(value) for value in theta.values())
        self.factor = nn.Parameter(next(iter(theta.values())).new_tensor(1.2))

    def start(self, theta: Params) -> Params:
        pairs = zip(theta.items(), self.offsets, strict=True)
        return {name: torch.tanh(self.factor * value) + offset for (name, value), offset in pairs}


class PerClass(Learnable):
    """A weight of each class, and a temperature."""

    def __init__(self, theta: Theta, classes: int) -> None:
        super().__init__()
        some = next(iter(theta.values()))
        self.weights, self.temperature = (
            nn.Parameter(torch.randn_like(some.new_zeros(classes))),
            nn.Parameter(some.new_tensor(1.3)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (
            F.cross_entropy(outputs * self.temperature, targets, reduction="none") * self.weights.exp()[targets]
        ).mean()


class Penalty(Learnable):
    """An individual strength of each parameter, of a smooth absolute value; the first parameter has none."""

    def __init__(self, theta: Theta) -> None:
        super().__init__()
        some = next(iter(theta.values()))
        self.strengths = nn.Parameter(torch.randn_like(some.new_zeros(len(theta))))

    def penalty(self, theta: Params) -> Tensor:
        sums = [(value * value + 1e-2).sqrt().sum() for value in list(theta.values())[1:]]
        return (self.strengths[1:].exp() * torch.stack(sums)).sum()


class Rates(Learnable):
    """A learning rate per parameter, and a mixture of their gradients' signs."""

    def __init__(self, theta: Theta) -> None:
        super().__init__()
        some = next(iter(theta.values()))
        self.scales = nn.Parameter(torch.randn_like(some.new_zeros(len(theta))))
        self.bend = nn.Parameter(some.new_tensor(0.7))

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: Theta, state: Params, lr: float | Tensor
    ) -> tuple[Theta, Theta]:
        scales = dict(zip(theta, self.scales.exp().unbind(), strict=True))
        bent = {name: scales[name] * (value + self.bend * torch.tanh(value)) for name, value in g.items()}
        return optimizer.update(theta, bent, state, lr)


class All(Learnable):
    """Start, loss, penalty and update at once, with a shared phi."""

    def __init__(self, theta: Theta, classes: int) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = Start(theta), PerClass(theta, classes), Penalty(theta), Rates(theta)

    def start(self, theta: Params) -> Params:
        return {name: value * self.two.temperature for name, value in self.one.start(theta).items()}

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.two.loss(outputs, targets)

    def penalty(self, theta: Params) -> Tensor:
        return self.three.penalty(theta) * self.one.factor

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: Theta, state: Params, lr: float | Tensor
    ) -> tuple[Theta, Theta]:
        return self.four.update(optimizer, theta, g, state, lr * self.one.factor)


LEARNABLES: dict[str, Callable[[Theta, int], Learnable]] = {
    "start": lambda theta, classes: Start(theta),
    "loss": PerClass,
    "penalty": lambda theta, classes: Penalty(theta),
    "update": lambda theta, classes: Rates(theta),
    "all hooks": All,
}
