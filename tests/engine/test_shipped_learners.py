"""The meta-gradient through the built-in image networks: exact equals reverse over reverse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from support.problems import Case, distance
from torch.nn import functional as F

from olfl_ray import models
from olfl_ray.engine import Problem, Sgd, choose_estimator, exact, reverse
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

ROWS, OUTPUTS = 2, 4
LEARNERS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "allcnnc with dropout": ("allcnnc", {"dropout": 0.5}, (1, 16, 16)),
    "squeezenet": ("squeezenet", {}, (1, 16, 16)),
    "vgg16": ("vgg16", {}, (1, 32, 32)),
    "wrn with dropout": ("wrn", {"depth": 10, "width": 2, "dropout": 0.3}, (1, 16, 16)),
}


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_exact_meta_gradient_is_available_and_equals_reverse_over_reverse(learner: str) -> None:
    torch.manual_seed(0)
    name, options, shape = LEARNERS[learner]
    module = models.build(name, options, input_shape=shape, outputs=OUTPUTS, seed=1).double().train()
    learned = build_loss(LearnedLossSpec(), "classification", seed=2).double()
    problem = Problem(
        module=module,
        learned=learned,
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=Sgd(momentum=0.9),
        draws_random=True,
    )
    train, meta = ((torch.randn(ROWS, *shape, dtype=torch.float64), torch.arange(ROWS) % OUTPUTS) for _ in range(2))
    assert choose_estimator("exact", "low", 1, problem, train).way == "low"
    theta = problem.theta()
    case = Case(
        problem=problem,
        theta=theta,
        buffers=problem.buffers(),
        state=problem.optimizer.init(theta),
        phi={key: value.detach().clone() for key, value in learned.named_parameters()},
        train=[train],
        meta=meta,
    )
    wanted = case.step(reverse)
    for memory in ("low", "fast"):
        found = case.step(partial(exact, memory=memory))
        assert distance(found.phi_grad, wanted.phi_grad) <= 1e-9, memory
        assert distance(found.theta, wanted.theta) <= 1e-12, memory
