"""A small learning problem in float64, for comparisons of meta-gradients."""

# B batch, D inputs, C outputs

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.engine import (
    Adam,
    Batch,
    Estimator,
    LearnerState,
    Optimizer,
    Problem,
    Sgd,
    StepResult,
    exact,
    finite_difference,
    reverse,
)
from olfl_ray.learnable import Learnable
from olfl_ray.tasks import Task

__all__ = ["ESTIMATORS", "SmallProblem", "distance", "small_problem"]

EXAMPLES, INPUTS = 12, 5
H = 1e-6
"""Step length of central differences."""

ESTIMATORS: Mapping[str, tuple[Estimator, float]] = {
    "exact, memory low": (partial(exact, memory="low"), 1e-9),
    "exact, memory fast": (partial(exact, memory="fast"), 1e-9),
    "finite_difference": (finite_difference, 2e-3),
}
"""Estimators, and their maximum distance from `reverse`."""


@dataclass(frozen=True, kw_only=True)
class SmallProblem:
    """The arguments of an estimator.

    Args:
        problem: Base learner, learnable, losses, optimizer.
        state: The learner before the steps.
        train: One batch per base step.
        meta: The batch of the outer objective.
    """

    problem: Problem
    state: LearnerState
    train: tuple[Batch, ...]
    meta: Batch

    def step(self, estimator: Estimator, *, fresh: bool = False, phi: Mapping[str, Tensor] | None = None) -> StepResult:
        """Call an estimator, each time with the same random numbers.

        Args:
            estimator: The estimator.
            fresh: Whether the learnable's `start` comes first.
            phi: Replaces the state's own.
        """
        torch.manual_seed(7)
        state = self.state if phi is None else replace(self.state, phi=dict(phi))
        return estimator(self.problem, state, 0.2, self.train, self.meta, fresh=fresh)

    def along(self, direction: Mapping[str, Tensor], *, fresh: bool = False) -> float:
        """The derivative of the outer objective along a direction of phi, by a central difference."""

        def at(length: float) -> Tensor:
            moved = {name: value + length * direction[name] for name, value in self.state.phi.items()}
            return self.step(reverse, fresh=fresh, phi=moved).meta_loss

        return ((at(H) - at(-H)) / (2 * H)).item()

    def directions(self, count: int = 2) -> list[dict[str, Tensor]]:
        """Random directions of phi, the same at each call."""
        draw = torch.Generator().manual_seed(3)
        return [
            {
                name: torch.randn(value.shape, generator=draw, dtype=value.dtype)
                for name, value in self.state.phi.items()
            }
            for _ in range(count)
        ]


def small_problem(
    task: Task,
    make: Callable[[dict[str, Tensor], int], Learnable],
    *,
    outputs: int = 3,
    steps: int = 1,
    optimizer: Optimizer | None = None,
    dropout: bool = False,
    trees: bool = False,
) -> SmallProblem:
    """A perceptron with batch norm on random inputs, with the task's targets.

    Args:
        task: The task.
        make: Returns the learnable for theta and the number of outputs.
        outputs: C.
        steps: S_inner.
        optimizer: Base optimizer; None: SGD with momentum and weight decay.
        dropout: Whether the base learner draws random numbers.
        trees: Whether a batch is a dict of inputs, which are the base learner's arguments, and a dict of targets, and its outputs
            are selected from a dict.
    """
    torch.manual_seed(5)
    layers: list[nn.Module] = [nn.Linear(INPUTS, 6), nn.BatchNorm1d(6), nn.Tanh()]
    layers += [nn.Dropout(0.3)] if dropout else []
    module: nn.Module = nn.Sequential(*layers, nn.Linear(6, outputs)).double().train()
    if trees:
        module = _Named(module).train()
    theta = {name: value.detach().clone() for name, value in module.named_parameters()}
    learnable = make(theta, outputs).double()
    plain = next(iter(task.losses.values()))

    def loss(outputs: Tensor, targets: Any) -> Tensor:
        return plain(outputs, targets["y"] if trees else targets)

    chosen = optimizer if optimizer is not None else Sgd(momentum=0.9, weight_decay=0.01)
    problem = Problem(
        module=module,
        learned=learnable,
        task_loss=loss,
        base_loss=loss,
        optimizer=chosen,
        draws_random=dropout,
        select=(lambda returned: returned["outputs"]) if trees else None,
        unpack=trees,
    )

    def batch() -> Batch:
        y = task.examples(EXAMPLES, outputs)[torch.randperm(EXAMPLES)]
        x, y = torch.randn(EXAMPLES, INPUTS).double(), y.double() if y.is_floating_point() else y
        if trees:
            return {"x": x, "mask": torch.rand(EXAMPLES, INPUTS) > 0.2}, {"y": y, "name": "a batch"}
        return x, y

    state = LearnerState(
        theta={name: value + 0.1 * torch.randn_like(value) for name, value in theta.items()},
        buffers=problem.buffers(),
        opt_state=chosen.init(theta),
        phi=problem.phi(),
        meta_state={},
        loss_buffers=problem.loss_buffers(),
    )
    return SmallProblem(problem=problem, state=state, train=tuple(batch() for _ in range(steps)), meta=batch())


class _Named(nn.Module):
    """Inputs by keyword, masked, and outputs by name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *, x: Tensor, mask: Tensor) -> dict[str, Any]:
        outputs: Tensor = self.inner(x.masked_fill(~mask, 0))
        return {"outputs": outputs, "masked": mask.sum()}


OPTIMIZERS: Mapping[str, Optimizer] = {"sgd": Sgd(momentum=0.9, weight_decay=0.01), "adam": Adam(eps=1e-3)}


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """|found - wanted| / |wanted|, over all entries together; 0 if both are zero."""
    assert found.keys() == wanted.keys(), f"it has {sorted(found)}, but phi is {sorted(wanted)}"
    off = torch.stack([(found[name] - value).norm() for name, value in wanted.items()]).norm().item()
    size = torch.stack([value.norm() for value in wanted.values()]).norm().item()
    return float(off / size if size else off)
