"""Independent references: `higher` and TorchOpt unroll the same step and compute the same meta-gradient."""

from functools import partial

import pytest
import torch
from support.problems import case, distance

from olfl_ray.engine import exact

LEARNERS = ["mlp with dead units", "lenet", "batch norm"]


def reference_case(learner: str, optimizer: str, steps: int):
    """A case whose module has its theta, so that the references can differentiate it."""
    problem = case(learner, optimizer, steps=steps)
    problem.problem.module.load_state_dict(problem.theta, strict=False)
    return problem


def own_gradient(problem, memory: str):
    return problem.step(partial(exact, memory=memory)).phi_grad


def gradient(loss: torch.Tensor, learned: torch.nn.Module) -> dict[str, torch.Tensor]:
    names, values = zip(*learned.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, values), strict=True))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("memory", ["low", "fast"])
def test_higher_gives_the_same_gradient(memory: str, learner: str, steps: int) -> None:
    higher = pytest.importorskip("higher")
    problem = reference_case(learner, "sgd", steps)
    module, learned = problem.problem.module, problem.problem.learned
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (f, inner):
        for x, y in problem.train:
            inner.step(learned(f(x), y))
        wanted = gradient(problem.problem.task_loss(f(problem.meta[0]), problem.meta[1]), learned)
    assert distance(own_gradient(problem, memory), wanted) <= 1e-10


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("memory", ["low", "fast"])
def test_torchopt_gives_the_same_gradient(memory: str, learner: str, steps: int) -> None:
    torchopt = pytest.importorskip("torchopt")
    problem = reference_case(learner, "nesterov", steps)
    problem.state.update({name: torch.zeros_like(value) for name, value in problem.state.items()})
    module, learned = problem.problem.module, problem.problem.learned
    optimizer = torchopt.MetaSGD(module, lr=0.05, momentum=0.9, nesterov=True)
    for x, y in problem.train:
        optimizer.step(learned(module(x), y))
    wanted = gradient(problem.problem.task_loss(module(problem.meta[0]), problem.meta[1]), learned)
    found = own_gradient(problem, memory)
    assert distance(found, wanted) <= 1e-10
