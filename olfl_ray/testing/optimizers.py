"""What every base optimizer does: a pure, differentiable step that leaves alone what has no gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from olfl_ray.engine import Optimizer

__all__ = ["OptimizerContract"]

LR = 0.1


class OptimizerContract(ABC):
    """Inherit it in a test module, and override `make`."""

    @abstractmethod
    def make(self) -> Optimizer:
        """The optimizer, with settings that use all of its parts."""

    def test_a_step_depends_only_on_its_arguments_and_changes_none_of_them(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        state = self._warm(optimizer, theta)
        given = [*theta.values(), *state.values()]
        before = [value.clone() for value in given]
        first = optimizer.update(theta, _parameters(1), state, LR)
        again = self.make().update(theta, _parameters(1), state, LR)
        for one, other in zip(first, again, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one), "keep nothing in attributes"
        assert all(map(torch.equal, given, before)), "its arguments changed"

    def test_state_keeps_its_names_shapes_and_types(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        state = optimizer.init(theta)
        for step in range(3):
            theta, after = optimizer.update(theta, _parameters(step), state, LR)
            assert {name: (value.shape, value.dtype) for name, value in after.items()} == {
                name: (value.shape, value.dtype) for name, value in state.items()
            }, "a checkpoint restores the state by its names"
            state = after

    def test_a_parameter_without_a_gradient_is_left_alone(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        state = self._warm(optimizer, theta)
        grads = _parameters(1)
        del grads["b"]
        moved, _ = optimizer.update(theta, grads, state, LR)
        assert torch.equal(moved["b"], theta["b"]), "b moved without a gradient"
        assert not torch.equal(moved["a"], theta["a"]), "a did not move"

    def test_its_derivatives_in_gradient_weights_and_rate_are_those_of_central_differences(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        state = self._warm(optimizer, theta)

        def step(*given: Tensor) -> tuple[Tensor, ...]:
            g_a, g_b, a, b, rate = given
            moved, after = optimizer.update({"a": a, "b": b}, {"a": g_a, "b": g_b}, dict(state), rate)
            return (*moved.values(), *(value for value in after.values() if value.requires_grad))

        inputs = [*_parameters(1).values(), *theta.values(), torch.tensor(LR, dtype=torch.float64)]
        torch.autograd.gradcheck(step, [value.clone().requires_grad_() for value in inputs])

    def test_gradient_factor_is_the_derivative_in_the_gradient(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        factor = optimizer.gradient_factor(LR)
        if factor is None:
            return
        state = self._warm(optimizer, theta)
        grads = {name: value.requires_grad_() for name, value in _parameters(1).items()}
        moved, _ = optimizer.update(theta, dict(grads), state, LR)
        for name, value in moved.items():
            (found,) = torch.autograd.grad(value.sum(), grads[name], retain_graph=True)
            torch.testing.assert_close(found, torch.full_like(found, float(factor)))

    def test_it_descends(self) -> None:
        optimizer, theta = self.make(), _parameters(0)
        state, first = optimizer.init(theta), _half_square(theta)
        for _ in range(300):
            theta, state = optimizer.update(theta, {name: value.clone() for name, value in theta.items()}, state, 0.01)
        assert _half_square(theta) < 0.9 * first

    def _warm(self, optimizer: Optimizer, theta: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its state after two steps."""
        state = optimizer.init(theta)
        for step in range(2):
            _, state = optimizer.update(theta, _parameters(10 + step), state, LR)
        return state


def _parameters(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(3, 2, generator=draw, dtype=torch.float64),
        "b": torch.randn(4, generator=draw, dtype=torch.float64),
    }


def _half_square(theta: dict[str, Tensor]) -> float:
    """The loss whose gradient is theta."""
    return sum(0.5 * value.square().sum().item() for value in theta.values())
