"""Edge cases: each estimator equals torch's own loop (theta', buffers, phi's gradient), or one error says why it can't."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import orthogonal

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import Sgd
from olfl_ray.engine.attributes import attributes_kept
from olfl_ray.engine.estimators import compared
from olfl_ray.errors import SpecError

ROWS, FEATURES, OUTPUTS = 6, 8, 3
WAYS: dict[str, dict[str, Any]] = {
    "auto": {},
    "fast": {"estimator": "exact", "memory": "fast"},
    "low": {"estimator": "exact", "memory": "low"},
    "reverse": {"estimator": "reverse"},
    "difference": {"estimator": "finite_difference"},
}


class Net(nn.Module):
    """A function of the module and its input, with named parts."""

    def __init__(self, run: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *given: Tensor) -> Tensor:
        return self.run(self, *given)


def linear(inputs: int = FEATURES, outputs: int = OUTPUTS) -> nn.Linear:
    return nn.Linear(inputs, outputs)


def mlp() -> nn.Module:
    return nn.Sequential(linear(FEATURES, 7), nn.Tanh(), linear(7))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.abs() if outputs.is_complex() else outputs, targets)


def weighted(_: nn.Module | None = None) -> nn.Module:
    """A learned loss of three numbers."""
    return Net(lambda self, o, y: cross_entropy(o * self.scale, y), scale=nn.Parameter(torch.tensor([0.7, 1.2, -0.4])))


def own_gradient(self: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(torch.tanh(self.energy(x)).pow(2).sum(), x, create_graph=True)
    return self.head(x - slope)


def functional_gradient(self: nn.Module, x: Tensor) -> Tensor:
    return self.head(x - torch.func.grad(lambda z: torch.tanh(self.energy(z)).pow(2).sum())(x))


def rarely_cut(self: nn.Module, x: Tensor) -> Tensor:
    hidden = torch.tanh(self.body(x))
    with torch.no_grad():
        scale = torch.where(hidden.norm(dim=1) > 0.5, 1 / hidden.norm(dim=1), 1.0)
    return self.head(hidden * scale[:, None])


def carried(self: nn.Module, x: Tensor) -> Tensor:
    hidden = torch.tanh(self.body(x) + self.before)
    self.before = hidden.detach()
    return self.head(hidden)


def thinned(self: nn.Module, x: Tensor) -> Tensor:
    hidden = torch.tanh(self.body(x))
    return self.head(hidden * torch.from_numpy((self.generator.random(hidden.shape) > 0.3).astype(float)))


def solved(self: nn.Module, x: Tensor) -> Tensor:
    square = self.body(x).view(-1, 4, 4) + 3 * torch.eye(4, dtype=x.dtype)
    return self.head(5 * torch.linalg.solve(square, x.new_ones(4, 1))[..., 0])


def measured(self: nn.Module, x: Tensor) -> Tensor:
    square = self.body(x)
    return self.head(square[:, :4]) * torch.linalg.slogdet(square.view(-1, 4, 4) + 3 * torch.eye(4))[1][:, None]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()


def cut(h: Tensor) -> Tensor:
    with torch.no_grad():
        scale = 1 / (0.5 + h.abs().mean(1, keepdim=True))
    return h * scale


def hooked(module: nn.Module) -> nn.Module:
    """Doubles the gradient of what precedes the head."""
    module.head.register_full_backward_hook(lambda _, inputs, outputs: (2 * inputs[0],))
    return module


def with_decay(module: nn.Module) -> nn.Module:
    def run(self: nn.Module, o: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(o, y) + self.rate.exp() * sum(value.square().sum() for value in module.parameters())

    return Net(run, rate=nn.Parameter(torch.tensor(-2.0)))


def with_penalty(module: nn.Module) -> nn.Module:
    def run(self: nn.Module, o: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(o, y) + self.rate.exp() * module.hidden.square().mean()

    return Net(run, rate=nn.Parameter(torch.tensor(-1.0)))


def keeping(self: nn.Module, x: Tensor) -> Tensor:
    self.hidden = torch.tanh(self.body(x))
    return self.head(self.hidden)


def dropping(_: nn.Module) -> nn.Module:
    def run(self: nn.Module, o: Tensor, y: Tensor) -> Tensor:
        pairs = torch.cat([o, F.one_hot(y, OUTPUTS).to(o)], 1)
        return self.b(F.dropout(F.softplus(self.a(pairs)), 0.4)).mean()

    return Net(run, a=linear(6, 8), b=linear(8, 1))


def attending(_: nn.Module) -> nn.Module:
    def run(self: nn.Module, o: Tensor, y: Tensor) -> Tensor:
        pairs = torch.cat([o, F.one_hot(y, OUTPUTS).to(o)], 1)
        return self.b(self.a(pairs, pairs, pairs, need_weights=False)[0]).mean()

    return Net(run, a=nn.MultiheadAttention(6, 2), b=linear(6, 1))


def drifting(_: nn.Module) -> nn.Module:
    def run(self: nn.Module, o: Tensor, y: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return cross_entropy(o * self.scale / self.calls, y)

    return Net(run, scale=nn.Parameter(torch.tensor([0.7, 1.2, -0.4])), calls=0)


class Centred(nn.Module):
    """A learned loss with a running mean and a counter."""

    def __init__(self, _: nn.Module | None = None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, 1.0]))
        self.register_buffer("mean", torch.zeros(OUTPUTS))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, o: Tensor, y: Tensor) -> Tensor:
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * o.detach().mean(0)
        return F.cross_entropy(self.gain[1] * (o - self.gain[0] * self.mean), y)


def by_turns(self: nn.Module, x: Tensor) -> Tensor:
    return self.first(x) + (self.second(x) if x[0, 0] > 0 else self.third(x))


def graph_network() -> nn.Module:
    edges = (torch.arange(ROWS * ROWS).view(ROWS, ROWS) % 3 == 0).double().to_sparse()
    return Net(
        lambda self, x: self.head(torch.sparse.mm(edges, torch.tanh(self.body(x)))),
        body=linear(FEATURES, 7),
        head=linear(7),
    )


def body_and_head(run: Callable[..., Tensor], width: int = 7, into: int | None = None, **more: Any) -> nn.Module:
    return Net(run, body=linear(FEATURES, width), head=linear(into or width), **more)


def convolved() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, FEATURES)), nn.Conv1d(1, 3, 3))


def normed() -> nn.Module:
    return nn.Sequential(linear(FEATURES, 6), nn.BatchNorm1d(6))


SGD: dict[str, Any] = {"lr": 0.3}
MOMENTUM = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
ADAMW = {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-2}


@dataclass(frozen=True)
class Edge:
    """A case, and the estimators that it does not support.

    Args:
        module: Builder of the base learner.
        loss: Builder of the learned loss, from the base learner.
        refused: Estimators that are refused.
        options: Options of torch's optimizer: SGD, or AdamW if they have eps.
        steps: Number of base steps.
        cut: Whether torch's graph lacks a part of the derivative (no_grad, detach, the third derivative of a batch norm),
            so that differences give another result: then torch's graph is the reference.
    """

    module: Callable[[], nn.Module]
    loss: Callable[[nn.Module], nn.Module] = weighted
    refused: tuple[str, ...] = ()
    options: Any = None
    steps: int = 1
    cut: bool = False

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        options = self.options or SGD
        return (torch.optim.AdamW if "eps" in options else torch.optim.SGD)(module.parameters(), **options)


EDGES: dict[str, Edge] = {
    "gradient of a convolution": Edge(lambda: Net(own_gradient, energy=convolved(), head=linear())),
    "gradient of a batch norm": Edge(lambda: Net(own_gradient, energy=normed(), head=linear())),
    "gradient of a batch norm, two steps": Edge(
        lambda: Net(own_gradient, energy=normed(), head=linear()), refused=("low", "difference"), steps=2, cut=True
    ),
    "functional gradient": Edge(lambda: Net(functional_gradient, energy=convolved(), head=linear())),
    "dropout in the loss": Edge(mlp, dropping),
    "dropout in the loss, three steps": Edge(mlp, dropping, steps=3),
    "attention in the loss": Edge(mlp, attending),
    "decay in the loss": Edge(mlp, with_decay, ("fast", "low", "difference")),
    "penalty of activations": Edge(lambda: body_and_head(keeping), with_penalty, ("fast", "low", "difference")),
    "idle parameters, momentum": Edge(
        lambda: body_and_head(lambda self, x: self.head(x), into=FEATURES), options=MOMENTUM
    ),
    "idle parameters, AdamW": Edge(
        lambda: body_and_head(lambda self, x: self.head(x), into=FEATURES), options=ADAMW, steps=2
    ),
    "branches in turn, momentum": Edge(
        lambda: Net(by_turns, first=linear(), second=linear(), third=linear()), options=MOMENTUM, steps=4
    ),
    "branches in turn, AdamW": Edge(
        lambda: Net(by_turns, first=linear(), second=linear(), third=linear()), options=ADAMW, steps=4
    ),
    "complex outputs": Edge(
        lambda: Net(lambda self, x: torch.view_as_complex(self.body(x).unflatten(1, (3, 2))), body=linear(FEATURES, 6))
    ),
    "outputs wider than inputs": Edge(lambda: Net(lambda self, x: self.body(x.bfloat16().double()), body=mlp())),
    "buffers of the loss": Edge(mlp, Centred),
    "buffers of the loss, three steps": Edge(mlp, Centred, ("difference",), steps=3, cut=True),
    "solve, three steps": Edge(lambda: body_and_head(solved, 16, 4), refused=("low",), steps=3),
    "slogdet, three steps": Edge(lambda: body_and_head(measured, 16, 4), refused=("low",), steps=3),
    "orthogonal, three steps": Edge(
        lambda: nn.Sequential(orthogonal(linear(FEATURES, FEATURES), orthogonal_map="cayley"), nn.Tanh(), linear()),
        refused=("low",),
        steps=3,
    ),
    "no_grad on later examples": Edge(lambda: body_and_head(rarely_cut), refused=("low", "difference"), cut=True),
    "state in an attribute": Edge(lambda: body_and_head(carried, before=0.0), refused=("low", "difference")),
    "a generator of its own": Edge(
        lambda: body_and_head(thinned, generator=numpy.random.default_rng(0)), refused=("low", "difference")
    ),
    "sparse matrix": Edge(graph_network, refused=("low",)),
    "differentiable once": Edge(
        lambda: body_and_head(lambda self, x: self.head(Once.apply(self.body(x)))),
        refused=("auto", "fast", "low", "reverse"),
    ),
    "differentiable once, and no_grad": Edge(
        lambda: body_and_head(lambda self, x: self.head(Once.apply(cut(self.body(x))))), refused=tuple(WAYS)
    ),
    "differentiable once, and state in an attribute": Edge(
        lambda: body_and_head(lambda self, x: Once.apply(carried(self, x)), before=0.0), refused=tuple(WAYS)
    ),
    "differentiable once, and a loss that keeps state": Edge(
        lambda: body_and_head(lambda self, x: self.head(Once.apply(self.body(x)))), drifting, refused=tuple(WAYS)
    ),
    "differentiable once, and a hook on a gradient": Edge(
        lambda: hooked(body_and_head(lambda self, x: Once.apply(self.head(self.body(x))))), refused=tuple(WAYS)
    ),
    "differentiable once, and a loss that detaches, three steps": Edge(
        lambda: body_and_head(lambda self, x: self.head(Once.apply(self.body(x)))),
        Centred,
        refused=tuple(WAYS),
        steps=3,
    ),
    "differentiable once, three steps": Edge(
        lambda: body_and_head(lambda self, x: self.head(Once.apply(self.body(x)))),
        refused=("auto", "fast", "low", "reverse"),
        steps=3,
    ),
    "a jump at this very theta, and a hook on a gradient": Edge(
        lambda: hooked(
            Net(
                lambda self, x: self.head(self.turn(self.body(x))),
                body=linear(FEATURES, 7),
                turn=orthogonal(linear(7, 7), orthogonal_map="householder"),
                head=linear(7),
            )
        ),
        refused=("low", "difference"),
        cut=True,
    ),
}


def built(edge: Edge) -> tuple[nn.Module, nn.Module, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = edge.module().double()
        learned = edge.loss(module).double()
        batches = [
            (torch.randn(ROWS, FEATURES).double(), torch.randint(OUTPUTS, (ROWS,))) for _ in range(edge.steps + 1)
        ]
    for index, (x, _) in enumerate(batches):
        x[0, 0] = (-1) ** index
        x[:2] *= 0.01  # so that two examples alone do not show what depends on their size
    return module, learned, batches[:-1], batches[-1]


def plain_loop(edge: Edge, shift: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """theta', the buffers and L_T by torch's own loop, from phi moved along a direction."""
    module, learned, train, meta = built(edge)
    directions = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in learned.parameters():
            value += shift * torch.randn(value.shape, generator=directions, dtype=value.dtype)
    optimizer = edge.optimizer(module)
    torch.manual_seed(1)
    for x, y in train:
        optimizer.zero_grad()
        learned(module(x), y).backward()
        optimizer.step()
    theta = {name: value.detach().clone() for name, value in module.named_parameters()}
    buffers = {name: value.clone() for name, value in learned.named_buffers()}
    return theta, buffers, cross_entropy(module(meta[0]), meta[1]).item()


def double_backward(edge: Edge) -> dict[str, Tensor]:
    """phi's gradient through explicit SGD steps, with torch's graph of everything."""
    module, learned, train, meta = built(edge)
    names = [name for name, _ in module.named_parameters()]
    places = [(module.get_submodule(name.rpartition(".")[0])._parameters, name.rpartition(".")[2]) for name in names]
    torch.manual_seed(1)
    # The fused attention kernel has only a first derivative.
    with sdpa_kernel(SDPBackend.MATH):
        return _through_steps(module, learned, places, train, meta)


def _through_steps(
    module: nn.Module, learned: nn.Module, places: Any, train: Any, meta: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    for x, y in train:
        values = [held[key] for held, key in places]
        slopes = torch.autograd.grad(learned(module(x), y), values, create_graph=True, allow_unused=True)
        for (held, key), value, slope in zip(places, values, slopes, strict=True):
            held[key] = value if slope is None else value - SGD["lr"] * slope
    phi = dict(learned.named_parameters())
    found = torch.autograd.grad(cross_entropy(module(meta[0]), meta[1]), list(phi.values()), materialize_grads=True)
    return dict(zip(phi, found, strict=True))


def state_of(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


@pytest.mark.parametrize("name", EDGES)
def test_every_estimator_equals_torchs_own_loop_or_is_refused(name: str) -> None:
    edge, h = EDGES[name], 1e-5
    theta, buffers, _ = plain_loop(edge)
    slope = (plain_loop(edge, h)[2] - plain_loop(edge, -h)[2]) / (2 * h)
    for way, settings in WAYS.items():
        module, learned, train, meta = built(edge)
        torch.manual_seed(1)
        before, random = state_of(module, learned), torch.get_rng_state()

        def call(
            module: nn.Module = module,
            learned: nn.Module = learned,
            train: Any = train,
            meta: Any = meta,
            settings: Any = settings,
        ) -> Any:
            return meta_gradient(module, edge.optimizer(module), learned, cross_entropy, train, meta, **settings)

        if way in edge.refused:
            with pytest.raises(SpecError, match=r"^meta\.estimator: "):
                call()
            assert torch.equal(torch.get_rng_state(), random), way
        else:
            found = call()
            for key, value in theta.items():
                torch.testing.assert_close(found.theta[key], value, rtol=1e-12, atol=1e-14, msg=f"{way} {key}")
            for key, value in buffers.items():
                torch.testing.assert_close(found.loss_buffers[key], value, rtol=1e-12, atol=0)
            directions = torch.Generator().manual_seed(3)
            along = sum(
                (grad * torch.randn(grad.shape, generator=directions, dtype=grad.dtype)).sum().item()
                for grad in found.phi_grad.values()
            )
            if not edge.cut:
                assert along == pytest.approx(slope, rel=1e-4 if way == "difference" else 1e-6, abs=1e-10), way
            if edge.options is None and way != "difference":
                for key, value in double_backward(edge).items():
                    torch.testing.assert_close(found.phi_grad[key], value, rtol=1e-9, atol=1e-13, msg=f"{way} {key}")
        assert all(torch.equal(one, other) for one, other in zip(before, state_of(module, learned), strict=True)), way


def learner_of(module: nn.Module, learned: nn.Module | None = None, **settings: Any) -> OnlineLossLearner:
    return OnlineLossLearner(module, Sgd(), learned or weighted().double(), cross_entropy, lr=0.1, **settings)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, FEATURES, dtype=torch.float64), torch.arange(ROWS) % OUTPUTS


class Switched(nn.Module):
    """Cuts gradients once a submodule is in eval mode, or a flag is set."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.cuts = linear(FEATURES, 7), linear(7), False

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(x))
        if self.cuts or not self.body.training:
            with torch.no_grad():
                scale = 1 / hidden.norm(dim=1, keepdim=True)
            hidden = hidden * scale
        return self.head(hidden)


@pytest.mark.parametrize("estimator", ["auto", "exact"])
def test_submodule_that_changes_its_mode_is_compared_again_at_once(estimator: Any) -> None:
    torch.manual_seed(0)
    module = Switched().double()
    learner = learner_of(module, estimator=estimator, memory="low")
    learner.step(batch(), batch())
    module.body.eval()
    before = state_of(module)
    if estimator == "exact":
        with pytest.raises(SpecError, match=r"^meta\.estimator: .*no_grad"):
            learner.step(batch(), batch())
        assert all(torch.equal(one, other) for one, other in zip(before, state_of(module), strict=True))
    else:
        assert learner.step(batch(), batch())["meta_loss"].isfinite()


def test_later_change_of_a_flag_is_detected_at_a_compared_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "EVERY", 5)
    torch.manual_seed(0)
    module = Switched().double()
    learner = learner_of(module, estimator="exact", memory="low")
    learner.step(batch(), batch())
    module.cuts = True

    def steps() -> None:
        for _ in range(10):
            learner.step(batch(), batch())

    with pytest.raises(SpecError, match=r"^meta\.estimator: .*no_grad"):
        steps()


@pytest.mark.parametrize("memory", ["low", "fast"])
def test_comparison_at_every_step_changes_no_bit(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for every in (1, 10**6):
        monkeypatch.setattr(compared, "EVERY", every)
        torch.manual_seed(0)
        module = nn.Sequential(linear(FEATURES, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.ReLU(), linear(7)).double()
        learned = Centred().double()
        learner = learner_of(module, learned, memory=memory, estimator="exact")
        for _ in range(4):
            learner.step(batch(), batch())
        assert learned.count.item() == 4
        results.append([*state_of(module, learned), torch.get_rng_state()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_layer_added_later_is_learned_through() -> None:
    torch.manual_seed(0)
    module = mlp().double()
    learner = learner_of(module)
    learner.step(batch(), batch())
    module[1] = nn.Sequential(nn.BatchNorm1d(7).double().requires_grad_(False), nn.Tanh())
    train, meta = batch(), batch()
    wanted = copy.deepcopy(module)
    loss = weighted().double()
    loss.load_state_dict(learner._learned.state_dict())
    found = meta_gradient(wanted, Sgd(), loss, cross_entropy, train, meta, lr=0.1, estimator="reverse")
    learner.step(train, meta)
    for name, value in module.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.detach(), found.theta[name], rtol=1e-12, atol=0)
    assert module[1][0].num_batches_tracked.item() == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("part", ["module", "learned_loss"])
def test_hook_on_a_parameter_is_refused(part: str, late: bool) -> None:
    module, learned = mlp().double(), weighted().double()
    learner = learner_of(module, learned)
    if late:
        learner.step(batch(), batch())
    next((module if part == "module" else learned).parameters()).register_hook(lambda grad: 2 * grad)
    with pytest.raises(SpecError, match=rf"^{part}: .*hook"):
        learner.step(batch(), batch())


def test_discarded_passes_change_no_attribute() -> None:
    module = Net(
        lambda self: None,
        count=0,
        seen=[1],
        table={"a": 1},
        tensor=torch.zeros(2),
        array=numpy.zeros(2),
        generator=numpy.random.default_rng(0),
        torch_generator=torch.Generator(),
    )
    state = module.generator.bit_generator.state, module.torch_generator.get_state()
    with attributes_kept(module):
        module.count += 1
        module.seen.append(2)
        module.table["b"] = 2
        module.tensor += 1
        module.array += 1
        module.generator.random()
        torch.rand(1, generator=module.torch_generator)
        module.extra = 1
    assert (module.count, module.seen, module.table, hasattr(module, "extra")) == (0, [1], {"a": 1}, False)
    assert module.tensor.sum() == 0
    assert module.array.sum() == 0
    assert module.generator.bit_generator.state == state[0]
    assert torch.equal(module.torch_generator.get_state(), state[1])
