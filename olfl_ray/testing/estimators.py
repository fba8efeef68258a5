"""Contract of meta-gradient estimators: the same step and gradient as reverse over reverse, without side effects."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import Estimator, reverse
from olfl_ray.engine.batches import tensors
from olfl_ray.learnable import BaseOptimizer, Learnable, Params
from olfl_ray.tasks import task_of
from olfl_ray.testing.problems import OPTIMIZERS, SmallProblem, distance, small_problem

__all__ = ["EstimatorContract"]


CLOSE = 1e-5
"""Largest relative distance of a gradient from a central difference."""


class EstimatorContract:
    """Inherit it in a test module, and override `make`; and `allowed`, for an approximation."""

    allowed = 1e-9
    """Largest relative distance of its meta-gradient from that of reverse over reverse, in float64."""

    def make(self) -> Estimator:
        """The estimator."""
        raise NotImplementedError

    def test_its_gradient_is_that_of_reverse_over_reverse(self) -> None:
        for name, found in _problems():
            wanted, given = (found.step(way, fresh=True) for way in (reverse, self.make()))
            off = distance(given.phi_grad, wanted.phi_grad)
            assert off <= self.allowed, f"{name}: its meta-gradient differs from reverse over reverse by {off:.1e}"

    def test_its_gradient_is_that_of_central_differences(self) -> None:
        for name, found in _problems():
            gradient = found.step(self.make(), fresh=True).phi_grad
            for direction in found.directions(1):
                wanted = found.along(direction, fresh=True)
                given = sum((gradient[key] * direction[key]).sum().item() for key in gradient)
                assert abs(given - wanted) <= max(self.allowed, CLOSE) * max(abs(wanted), 1e-2), (
                    f"{name}: {given}, {wanted}"
                )

    def test_its_steps_are_those_of_reverse_over_reverse(self) -> None:
        for name, found in _problems():
            wanted, given = (found.step(way, fresh=True) for way in (reverse, self.make()))
            for part in ("theta", "buffers", "opt_state", "loss_buffers"):
                torch.testing.assert_close(
                    getattr(given, part), getattr(wanted, part), rtol=1e-9, atol=1e-11, msg=f"{name}: {part} differs"
                )
            for part in ("base_loss", "task_loss", "meta_loss"):
                torch.testing.assert_close(
                    getattr(given, part), getattr(wanted, part), rtol=1e-9, atol=0, msg=f"{name}: {part} differs"
                )

    def test_it_does_not_change_its_arguments(self) -> None:
        for name, found in _problems():
            before = copy.deepcopy((found.state, found.train, found.meta))
            modules = [copy.deepcopy(part.state_dict()) for part in (found.problem.module, found.problem.learned)]
            found.step(self.make(), fresh=True)
            assert _same(before[0], found.state), f"{name}: the state has changed"
            for old, new in zip((*before[1], before[2]), (*found.train, found.meta), strict=True):
                assert all(map(torch.equal, tensors(old), tensors(new))), f"{name}: a batch has changed"
            for old_state, part in zip(modules, (found.problem.module, found.problem.learned), strict=True):
                assert _equal(old_state, part.state_dict()), f"{name}: a module has changed"

    def test_its_results_are_detached_and_not_shared(self) -> None:
        for name, found in _problems():
            result = found.step(self.make(), fresh=True)
            own = {value.data_ptr() for value in (*found.state.theta.values(), *found.state.phi.values())}
            for part in fields(result):
                value = getattr(result, part.name)
                for tensor in value.values() if isinstance(value, Mapping) else (value,):
                    assert not tensor.requires_grad, f"{name}: {part.name} has a graph"
                    assert part.name != "phi_grad" or tensor.data_ptr() not in own, (
                        f"{name}: phi_grad shares memory with the state"
                    )

    def test_it_draws_the_random_numbers_of_its_passes(self) -> None:
        """Dropout at the next step also equals that of reverse over reverse."""
        found = small_problem(
            task_of("classification"), lambda theta, outputs: _Everywhere(theta, outputs), dropout=True
        )
        after = []
        for way in (reverse, self.make()):
            found.step(way)
            after.append(torch.get_rng_state())
        assert torch.equal(*after), "the random state afterwards differs from reverse over reverse"


class _Everywhere(Learnable):
    """phi enters at all four hooks."""

    def __init__(self, theta: Mapping[str, Tensor], outputs: int) -> None:
        super().__init__()
        self.factor, self.strength, self.rate = (nn.Parameter(torch.tensor(value)) for value in (1.1, 0.02, 0.2))
        self.weights = nn.Parameter(torch.linspace(-0.5, 0.5, outputs))

    def start(self, theta: Params) -> Params:
        return {name: self.factor * value for name, value in theta.items()}

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        targets = targets["y"] if isinstance(targets, dict) else targets
        return (self.weights.exp()[targets] * F.cross_entropy(outputs, targets, reduction="none")).mean()

    def penalty(self, theta: Params) -> Tensor:
        return self.strength * torch.stack([value.square().sum() for value in theta.values()]).sum()

    def update(
        self, optimizer: BaseOptimizer, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return optimizer.update(theta, g, state, lr * self.rate.exp())


def _problems() -> Iterator[tuple[str, SmallProblem]]:
    """Each optimizer: one base step; three, with dropout; one on batches that are trees of tensors."""
    for name, optimizer in OPTIMIZERS.items():
        for steps, dropout, trees in ((1, False, False), (3, True, False), (1, False, True)):
            found = small_problem(
                task_of("classification"),
                lambda theta, outputs: _Everywhere(theta, outputs),
                steps=steps,
                optimizer=optimizer,
                dropout=dropout,
                trees=trees,
            )
            yield f"{name}, {steps} steps{', trees' if trees else ''}", found


def _same(one: object, other: object) -> bool:
    return all(_equal(getattr(one, part.name), getattr(other, part.name)) for part in fields(one))  # type: ignore[arg-type]


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
