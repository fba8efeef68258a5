"""The contestants: a plain step, ours by estimator and memory, and peers; all with one interface and fresh objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    Graphed,
    LearnerState,
    Metrics,
    Precision,
    Problem,
    Sgd,
    choose_estimator,
    exact,
    finite_difference,
    online_step,
    reverse,
)
from olfl_ray.engine.arithmetic import autocast
from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.spec import LearnedLossSpec

__all__ = ["CONTESTANTS", "NETWORKS", "Arena", "Contestant", "entered"]

LR, ETA = 0.01, 1e-5
NETWORKS: Mapping[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "linear": ("linear", {}, (1, 28, 28)),
    "MLP 784-1000-10": ("mlp", {"hidden": [1000]}, (1, 28, 28)),
    "LeNet-5": ("lenet5", {}, (1, 28, 28)),
    "AllCNN-C": ("allcnnc", {}, (3, 32, 32)),
    "ResNet-18": ("resnet18", {}, (3, 32, 32)),
}
"""Name -> base learner, its options, and the shape of an example."""


class Arena:
    """One network, one loss network with default settings and two random batches, the same for all contestants."""

    def __init__(self, network: str, rows: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        name, options, shape = NETWORKS[network]
        self.module = models.build(name, options, input_shape=shape, outputs=10, seed=0).to(device, dtype).train()
        self.learned: LearnedLoss = build_loss(LearnedLossSpec(), "classification", seed=1).to(device, dtype)
        draw = torch.Generator().manual_seed(2)
        self.train, self.meta = (
            (
                torch.randn(rows, *shape, generator=draw).to(device, dtype),
                torch.randint(10, (rows,), generator=draw).to(device),
            )
            for _ in range(2)
        )


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """`start` returns a step for an arena; a step returns the gradient of phi, in the order of phi, or None (plain).

    Args:
        start: See above.
        exact: Whether its gradient is exact, in the arithmetic of its precision.
        needs: The library that it needs.
        gpu_only: Whether it is useful only on a GPU.
        precision: Precision of the base learner's passes.
    """

    start: Callable[[Arena], Callable[[], list[Tensor] | None]]
    exact: bool = True
    needs: str | None = None
    gpu_only: bool = False
    precision: Precision = "float32"


def _plain(arena: Arena, *, precision: Precision = "float32", compiled: bool = False) -> Callable[[], None]:
    optimizer = torch.optim.SGD(arena.module.parameters(), LR)
    x, y = arena.train
    module = torch.compile(arena.module) if compiled else arena.module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, x.device):
            outputs = module(x)
        F.cross_entropy(outputs.to(x.dtype), y).backward()
        optimizer.step()

    return step


def _plain_graphed(arena: Arena, *, precision: Precision = "float32") -> Callable[[], None]:
    """The same step as a CUDA graph, captured at the first call like ours: the best that a plain step can reach."""
    step, (x, _) = _plain(arena, precision=precision), arena.train
    captured: list[torch.cuda.CUDAGraph] = []

    def replay() -> None:
        with torch.cuda.device(x.device):
            if not captured:
                captured.append(_captured(step))
            captured[0].replay()

    return replay


def _captured(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def _ours(
    arena: Arena,
    choose: Callable[[Problem, Batch], Estimator],
    *,
    precision: Precision = "float32",
    graph: bool = False,
) -> Callable[[], list[Tensor]]:
    problem = Problem(
        module=arena.module,
        learned=arena.learned,
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=Sgd(),
        draws_random=False,
        precision=precision,
    )
    chosen, meta_optimizer = choose(problem, arena.train), Adam()
    phi = {name: value.detach().clone() for name, value in arena.learned.named_parameters()}
    state = LearnerState(
        theta=problem.theta(), buffers=problem.buffers(), opt_state={}, phi=phi, meta_state=meta_optimizer.init(phi)
    )
    found: list[Tensor] = []

    def estimator(*parts: Any, **more: Any) -> Any:
        result = chosen(*parts, **more)
        found[:] = result.phi_grad.values()
        return result

    def advance(now: LearnerState, batches: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        x, y, meta_x, meta_y = batches
        return online_step(
            problem,
            now,
            (x, y),
            (meta_x, meta_y),
            lr=LR,
            eta=ETA,
            estimator=estimator,
            meta_optimizer=meta_optimizer,
            clip_norm=None,
        )

    inputs = (*arena.train, *arena.meta)
    graphed = Graphed(advance, state, capture=True) if graph else None

    def step() -> list[Tensor]:
        nonlocal state
        if graphed is not None:
            graphed(inputs)
        else:
            state, _ = advance(state, inputs)
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
    """Betty does not unroll: its default (darts) differentiates implicitly, by differences; another quantity."""
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


def _auto(problem: Problem, batch: Batch) -> Estimator:
    return choose_estimator("auto", "auto", 1, problem, batch)


def _estimator(estimator: Estimator) -> Contestant:
    return Contestant(
        start=partial(_ours, choose=lambda problem, batch: estimator), exact=estimator is not finite_difference
    )


def _on_gpu(precision: Precision) -> dict[str, Contestant]:
    """Plain and ours as captured graphs, in one precision."""
    name = "" if precision == "float32" else f", {precision}"
    plain, ours = (
        partial(_plain_graphed, precision=precision),
        partial(_ours, choose=_auto, precision=precision, graph=True),
    )
    return {
        f"plain step, graph{name}": Contestant(start=plain, gpu_only=True, precision=precision),
        f"ours: auto, graph{name}": Contestant(start=ours, gpu_only=True, precision=precision),
    }


CONTESTANTS: Mapping[str, Contestant] = {
    "plain step": Contestant(start=_plain),
    "plain step, compiled": Contestant(start=partial(_plain, compiled=True), gpu_only=True),
    "ours: auto": Contestant(start=partial(_ours, choose=_auto)),
    "ours: exact, fast": _estimator(partial(exact, memory="fast")),
    "ours: exact, low": _estimator(partial(exact, memory="low")),
    "ours: reverse": _estimator(reverse),
    "ours: finite difference": _estimator(finite_difference),
    **_on_gpu("float32"),
    **_on_gpu("tf32"),
    **_on_gpu("bf16"),
    "higher": Contestant(start=_higher, needs="higher"),
    "TorchOpt": Contestant(start=_torchopt, needs="torchopt"),
    "Betty": Contestant(start=_betty, exact=False, needs="betty"),
}


def entered(device: str) -> list[str]:
    """Names of the contestants whose library is installed, and that are useful on a device."""
    on_gpu = device.startswith("cuda")
    return [
        name
        for name, one in CONTESTANTS.items()
        if (one.needs is None or find_spec(one.needs) is not None) and (on_gpu or not one.gpu_only)
    ]
