"""Who is timed: a plain step, ours by estimator and memory, and the peers; one interface, fresh parts each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import models
from olfl_ray.engine import (
    Adam,
    Batch,
    Estimator,
    LearnerState,
    Problem,
    Sgd,
    choose_estimator,
    exact,
    finite_difference,
    online_step,
    reverse,
)
from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.spec import LearnedLossSpec

__all__ = ["CONTESTANTS", "NETWORKS", "PEERS", "Arena", "Contestant", "installed"]

LR, ETA = 0.01, 1e-5
NETWORKS: Mapping[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "linear": ("linear", {}, (1, 28, 28)),
    "MLP 784-1000-10": ("mlp", {"hidden": [1000]}, (1, 28, 28)),
    "LeNet-5": ("lenet5", {}, (1, 28, 28)),
    "AllCNN-C": ("allcnnc", {}, (3, 32, 32)),
    "ResNet-18": ("resnet18", {}, (3, 32, 32)),
}
"""Name -> base learner, its options, and the shape of a row."""


class Arena:
    """One network, one loss network of the default settings and two random batches, the same for all contestants."""

    def __init__(self, network: str, rows: int, dtype: torch.dtype = torch.float32) -> None:
        name, options, shape = NETWORKS[network]
        self.module = models.build(name, options, input_shape=shape, outputs=10, seed=0).to(dtype).train()
        self.learned: LearnedLoss = build_loss(LearnedLossSpec(), "classification", seed=1).to(dtype)
        draw = torch.Generator().manual_seed(2)
        self.train, self.meta = (
            (torch.randn(rows, *shape, generator=draw).to(dtype), torch.randint(10, (rows,), generator=draw))
            for _ in range(2)
        )


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """`start` gives a step from an arena; a step gives the gradient of phi, in the order of phi, or None (plain)."""

    start: Callable[[Arena], Callable[[], list[Tensor] | None]]
    exact: bool = True
    needs: str | None = None


def _plain(arena: Arena) -> Callable[[], None]:
    optimizer = torch.optim.SGD(arena.module.parameters(), LR)
    x, y = arena.train

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(arena.module(x), y).backward()
        optimizer.step()

    return step


def _ours(arena: Arena, choose: Callable[[Problem, Batch], Estimator]) -> Callable[[], list[Tensor]]:
    problem = Problem(
        module=arena.module,
        learned=arena.learned,
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=Sgd(),
        draws_random=False,
    )
    chosen, meta_optimizer = choose(problem, arena.train), Adam()
    phi = {name: value.detach().clone() for name, value in arena.learned.named_parameters()}
    state = LearnerState(
        theta=problem.theta(), buffers=problem.buffers(), opt_state={}, phi=phi, meta_state=meta_optimizer.init(phi)
    )
    found: list[Tensor] = []

    def estimator(*parts: Any) -> Any:
        result = chosen(*parts)
        found[:] = result.phi_grad.values()
        return result

    def step() -> list[Tensor]:
        nonlocal state
        state, _ = online_step(
            problem,
            state,
            arena.train,
            arena.meta,
            lr=LR,
            eta=ETA,
            estimator=estimator,
            meta_optimizer=meta_optimizer,
            clip_norm=None,
        )
        return found

    return step


def _meta_step(learned: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> list[Tensor]:
    grads = list(torch.autograd.grad(loss, list(learned.parameters())))
    for parameter, grad in zip(learned.parameters(), grads, strict=True):
        parameter.grad = grad
    optimizer.step()
    return grads


def _higher(arena: Arena) -> Callable[[], list[Tensor]]:
    import higher

    optimizer = torch.optim.SGD(arena.module.parameters(), LR)
    meta = torch.optim.Adam(arena.learned.parameters(), ETA)

    def step() -> list[Tensor]:
        with higher.innerloop_ctx(arena.module, optimizer, copy_initial_weights=False) as (f, inner):
            inner.step(arena.learned(f(arena.train[0]), arena.train[1]))
            grads = _meta_step(arena.learned, meta, F.cross_entropy(f(arena.meta[0]), arena.meta[1]))
            with torch.no_grad():
                for own, moved in zip(arena.module.parameters(), f.parameters(), strict=True):
                    own.copy_(moved)
        return grads

    return step


def _torchopt(arena: Arena) -> Callable[[], list[Tensor]]:
    import torchopt

    optimizer = torchopt.MetaSGD(arena.module, lr=LR)
    meta = torch.optim.Adam(arena.learned.parameters(), ETA)

    def step() -> list[Tensor]:
        optimizer.step(arena.learned(arena.module(arena.train[0]), arena.train[1]))
        grads = _meta_step(arena.learned, meta, F.cross_entropy(arena.module(arena.meta[0]), arena.meta[1]))
        torchopt.stop_gradient(arena.module)
        torchopt.stop_gradient(optimizer)
        return grads

    return step


def _betty(arena: Arena) -> Callable[[], None]:
    """Betty unrolls nothing: its default (darts) differentiates implicitly, by differences; another quantity."""
    import logging

    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    class Inner(ImplicitProblem):  # type: ignore[misc]
        def training_step(self, batch: Batch) -> Tensor:
            loss: Tensor = self.outer(self.forward(batch[0]), batch[1])
            return loss

    class Outer(ImplicitProblem):  # type: ignore[misc]
        def training_step(self, batch: Batch) -> Tensor:
            return F.cross_entropy(self.inner(batch[0]), batch[1])

    logging.getLogger("betty").disabled = True  # it prints a page at each start
    outer = Outer(
        name="outer",
        module=arena.learned,
        optimizer=torch.optim.Adam(arena.learned.parameters(), ETA),
        train_data_loader=[arena.meta],
        config=Config(),
    )
    inner = Inner(
        name="inner",
        module=arena.module,
        optimizer=torch.optim.SGD(arena.module.parameters(), LR),
        train_data_loader=[arena.train],
        config=Config(unroll_steps=1),
    )
    engine = Engine(
        config=EngineConfig(train_iters=1, valid_step=2),
        problems=[outer, inner],
        dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
    )
    engine.train()

    def step() -> None:
        engine.global_step += 1
        engine.train_step()

    return step


def _estimator(estimator: Estimator) -> Contestant:
    return Contestant(
        start=partial(_ours, choose=lambda problem, batch: estimator), exact=estimator is not finite_difference
    )


CONTESTANTS: Mapping[str, Contestant] = {
    "plain step": Contestant(start=_plain),
    "ours: auto": Contestant(
        start=partial(_ours, choose=lambda problem, batch: choose_estimator("auto", "auto", 1, problem, batch))
    ),
    "ours: exact, fast": _estimator(partial(exact, memory="fast")),
    "ours: exact, low": _estimator(partial(exact, memory="low")),
    "ours: reverse": _estimator(reverse),
    "ours: finite difference": _estimator(finite_difference),
    "higher": Contestant(start=_higher, needs="higher"),
    "TorchOpt": Contestant(start=_torchopt, needs="torchopt"),
    "Betty": Contestant(start=_betty, exact=False, needs="betty"),
}
PEERS = ("higher", "TorchOpt", "Betty")


def installed(name: str) -> bool:
    """Whether a contestant's library is here."""
    needs = CONTESTANTS[name].needs
    return needs is None or find_spec(needs) is not None
