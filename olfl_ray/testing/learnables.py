"""Contract of learnables: hooks keep shapes, the meta-gradient is right with every estimator, and phi can be stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from safetensors.torch import load
from torch import Tensor

from olfl_ray.engine import StepResult, meta_gradient, reverse
from olfl_ray.learnable import Learnable
from olfl_ray.tasks import Task, task_of
from olfl_ray.testing.problems import ESTIMATORS, OPTIMIZERS, SmallProblem, distance, small_problem

__all__ = ["LearnableContract"]

CLOSE = 1e-4
"""Largest relative distance of a gradient from a central difference."""


class LearnableContract:
    """Inherit it in a test module, and override `make`; also `task` or `outputs`, if it does not support every task."""

    task = "classification"
    """Name of the task on which it is tested."""
    outputs = 3
    """C, number of outputs of the base learner."""

    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        """The learnable at a phi where each of its parts matters, for example a random one.

        Args:
            theta: The base learner's trainable parameters, by name.
            outputs: C.
        """
        raise NotImplementedError

    def test_its_hooks_keep_names_and_shapes(self) -> None:
        for found in self._problems(steps=1):
            problem, state = found.problem, found.state
            phi, theta, g = (
                state.phi,
                state.theta,
                {name: torch.ones_like(value) for name, value in state.theta.items()},
            )
            started = problem.starting(phi, state.loss_buffers, theta)
            stepped, kept = problem.update(phi, state.loss_buffers, theta, g, state.opt_state, 0.1)
            for name, value in theta.items():
                assert started[name].shape == stepped[name].shape == value.shape, f"theta's {name} has another shape"
            assert {name: value.shape for name, value in kept.items()} == {
                name: value.shape for name, value in state.opt_state.items()
            }, "the optimizer's state has other names or shapes"
            result = found.step(reverse, fresh=True)
            for name in ("base_loss", "task_loss", "meta_loss"):
                value = getattr(result, name)
                assert value.numel() == int(value.isfinite().sum()) == 1, f"{name} is not one finite number"

    def test_every_estimator_equals_reverse_over_reverse(self) -> None:
        for steps in (1, 2):
            for found in self._problems(steps=steps):
                wanted = found.step(reverse, fresh=True)
                for name, (estimator, allowed) in ESTIMATORS.items():
                    given = found.step(estimator, fresh=True)
                    off = distance(given.phi_grad, wanted.phi_grad)
                    assert off <= allowed, f"{name} differs from reverse over reverse by {off:.1e} after {steps} steps"
                    torch.testing.assert_close(given.theta, wanted.theta, rtol=1e-8, atol=1e-10)

    def test_its_meta_gradient_equals_central_differences(self) -> None:
        for steps in (1, 2):
            for found in self._problems(steps=steps):
                gradient = found.step(reverse, fresh=True).phi_grad
                for direction in found.directions():
                    wanted, given = found.along(direction, fresh=True), _along(gradient, direction)
                    assert abs(given - wanted) <= CLOSE * self._scale(found, direction), (
                        f"the meta-gradient is {given} along a direction of phi, the central difference {wanted}"
                    )

    def test_error_of_one_percent_would_be_detected(self) -> None:
        """phi matters: its gradient is far above the tolerance of the comparisons."""
        for found in self._problems(steps=2):
            gradient = found.step(reverse, fresh=True).phi_grad
            seen = [
                abs(0.01 * _along(gradient, direction)) > CLOSE * self._scale(found, direction)
                for direction in found.directions(8)
            ]
            assert any(seen), "phi does not change the outer objective"

    def test_it_works_in_a_users_own_loop(self) -> None:
        for found in self._problems(steps=1):
            problem = found.problem
            one, other = (self._own_loop(found, name) for name in ("auto", "reverse"))
            off = distance(one.phi_grad, other.phi_grad)
            assert off <= 1e-9, f"auto differs from reverse by {off:.1e}"
            assert set(one.phi_grad) == {
                name for name, value in problem.learned.named_parameters() if value.requires_grad
            }

    def test_its_state_round_trips_through_files(self) -> None:
        for found in self._problems(steps=1):
            learnable = found.problem.learned
            assert isinstance(learnable, Learnable)
            with torch.no_grad():
                for index, value in enumerate(learnable.parameters()):
                    value.add_(0.01 * (index + 1))
            files = learnable.files()
            assert files == learnable.files(), "its files differ from one call to the next"
            kept = [tensors for name, content in files.items() for tensors in _tensors(name, content)]
            for name, value in learnable.named_parameters():
                assert any(_same(value, other) for tensors in kept for other in tensors.values()), (
                    f"no file contains its parameter {name}"
                )
            copy = self.make(found.state.theta, self.outputs).double()
            copy.load_state_dict(learnable.state_dict())
            again = replace(found.problem, learned=copy)
            state = replace(found.state, phi=again.phi(), loss_buffers=again.loss_buffers())
            one, other = (
                replace(found, problem=problem, state=state).step(reverse, fresh=True)
                for problem in (found.problem, again)
            )
            for name, slope in one.phi_grad.items():
                assert torch.equal(slope, other.phi_grad[name]), "a copy with its phi takes another step"

    def test_what_it_measures_is_finite(self) -> None:
        for found in self._problems(steps=1):
            learnable = found.problem.learned
            assert isinstance(learnable, Learnable)
            for name, value in learnable.measured(0.1).items():
                assert math.isfinite(value), f"{name} is {value}"
            drawn = learnable.surface()
            assert drawn is None or len({column.shape for column in drawn}) == 1, (
                "the columns of a surface differ in shape"
            )

    def _problems(self, steps: int) -> Iterator[SmallProblem]:
        task: Task = task_of(self.task)
        for optimizer in OPTIMIZERS.values():
            yield small_problem(task, self.make, outputs=self.outputs, steps=steps, optimizer=optimizer)

    def _own_loop(self, found: SmallProblem, estimator: str) -> StepResult:
        problem = found.problem
        return meta_gradient(
            problem.module,
            problem.optimizer,
            problem.learned,
            problem.task_loss,
            found.train[0],
            found.meta,
            lr=0.2,
            estimator=estimator,
            fresh=True,
        )

    def _scale(self, found: SmallProblem, direction: Mapping[str, Tensor]) -> float:
        """The scale of a derivative's error: its size, or the resolution of a difference of the objective."""
        return max(abs(found.along(direction, fresh=True)), 1e-5)


def _along(gradient: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> float:
    return sum((gradient[name] * direction[name]).sum().item() for name in gradient)


def _tensors(name: str, content: bytes) -> list[dict[str, Tensor]]:
    return [load(content)] if name.endswith(".safetensors") else []


def _same(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and torch.equal(value.detach().to(other.dtype), other)
