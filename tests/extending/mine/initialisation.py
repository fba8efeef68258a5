"""A learned initialisation over a family of sinusoid regressions (MAML: Finn et al. 2017)."""

import torch
from torch import nn

from olfl_ray.data import Dataset
from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods import Method, Setting


def sinusoids(shots: int = 10, queries: int = 30) -> Dataset:
    """Each task: y = a sin(x + b), with a and b of its own."""

    def episode(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = torch.Generator().manual_seed(seed)
        a, b = torch.rand(2, generator=draws) * torch.tensor([4.9, 3.14]) + torch.tensor([0.1, 0.0])
        x = torch.rand(shots + queries, 1, generator=draws) * 10 - 5
        return x, a * torch.sin(x + b)

    return Dataset(name="sinusoids", kind="regression", episode=episode)


class Initialisation(Learnable):
    """phi is theta_0."""

    def __init__(self, theta: Params) -> None:
        super().__init__()
        self.names, self.values = list(theta), nn.ParameterList(value.clone() for value in theta.values())

    def start(self, theta: Params) -> Params:
        return dict(zip(self.names, self.values, strict=True))


class LearnedInitialisation(Method):
    before = True
    uses = ("meta",)

    def learnable(self, setting: Setting) -> Learnable:
        return Initialisation(setting.theta)
