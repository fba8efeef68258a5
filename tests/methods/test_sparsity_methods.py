"""Contracts of the learned group strength and its methods, and of the proximal optimizers."""

from collections.abc import Mapping

from torch import Tensor

from olfl_ray.engine import Optimizer, ProxAdam, ProxSgd
from olfl_ray.learnable import Learnable
from olfl_ray.methods.group_strength import PenaltyStrength, ProximalStrength
from olfl_ray.testing import LearnableContract, OptimizerContract


class TestProxSgd(OptimizerContract):
    def make(self) -> Optimizer:
        return ProxSgd(strength=0.3, momentum=0.5, nesterov=True, weight_decay=0.1, clip_norm=2.0)


class TestProxAdam(OptimizerContract):
    def make(self) -> Optimizer:
        return ProxAdam(strength=0.05, weight_decay=0.1)


class TestProxAdamW(OptimizerContract):
    def make(self) -> Optimizer:
        return ProxAdam(strength=0.05, weight_decay=0.1, decoupled=True, layers=("a",))


class TestProximalStrength(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return ProximalStrength(0.05)


class TestProximalStrengthWithDeadGroups(LearnableContract):
    """In Adam's metric most groups of the small problem are dead after two steps."""

    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return ProximalStrength(0.1)


class TestPenaltyStrength(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return PenaltyStrength(0.1)
