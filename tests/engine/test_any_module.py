"""Modules as users write them: every estimator equals reverse over reverse, or one message says why it can't."""

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.problems import distance
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import (
    Adam,
    LearnerState,
    Memory,
    Problem,
    Sgd,
    StepResult,
    base_step,
    choose_estimator,
    exact,
    finite_difference,
    init_step,
    online_step,
    reverse,
)
from olfl_ray.errors import SpecError
from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.methods.online_lr import LearningRate
from olfl_ray.spec import LearnedLossSpec

ROWS, FEATURES, OUTPUTS = 8, 6, 3
WAYS = {
    "reverse": {"estimator": "reverse"},
    "exact, low": {"estimator": "exact", "memory": "low"},
    "exact, fast": {"estimator": "exact", "memory": "fast"},
    "auto": {"estimator": "auto"},
}


class Pipe(nn.Module):
    """A module from a function of the module and its input, and named parts."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def found(module: nn.Module, x: Tensor, dtype: torch.dtype = torch.float64, **ways: str) -> StepResult:
    torch.manual_seed(2)
    random.seed(2)
    y = torch.arange(len(x)) % OUTPUTS
    learned = build_loss(LearnedLossSpec(), "classification", seed=1).to(dtype)
    return meta_gradient(module, Sgd(), learned, F.cross_entropy, (x, y), (x.flip(0), y.flip(0)), lr=0.1, **ways)


def scaled_without_gradient(self: nn.Module, x: Tensor) -> Tensor:
    hidden = torch.tanh(self.body(x))
    with torch.no_grad():
        scale = hidden.abs().mean(1, keepdim=True) + self.body.weight.norm()
    return self.head(hidden / scale)


def mapped(self: nn.Module, x: Tensor) -> Tensor:
    return self.head(torch.func.vmap(self.body)(x.reshape(-1, 1, 1, FEATURES)).flatten(1))


def in_time(self: nn.Module, x: Tensor) -> Tensor:
    out = self.body(x.unsqueeze(1).expand(-1, 3, -1))
    return self.head((out[0] if isinstance(out, tuple) else out).mean(1))


def dropping(self: nn.Module, x: Tensor) -> Tensor:
    for _ in range(6):
        x = x + torch.tanh(self.body(x)) if random.random() < 0.5 else x
    return self.head(x)


def attending(self: nn.Module, x: Tensor) -> Tensor:
    x_BHTD = self.body(x).reshape(len(x), 1, 2, 3)
    return self.head(F.scaled_dot_product_attention(x_BHTD, x_BHTD, x_BHTD).flatten(1))


def pipe(run: Callable[..., Tensor], body: nn.Module, width: int = FEATURES) -> nn.Module:
    return Pipe(run, body=body, head=nn.Linear(width, OUTPUTS))


MODULES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "no_grad": (lambda: pipe(scaled_without_gradient, nn.Linear(FEATURES, FEATURES)), {"exact, low"}),
    "spectral norm": (
        lambda: pipe(lambda self, x: self.head(self.body(x)), spectral_norm(nn.Linear(FEATURES, FEATURES))),
        {"exact, low"},
    ),
    "vmap": (lambda: pipe(mapped, nn.Conv1d(1, 2, 3), 8), set()),
    "transformer": (lambda: pipe(in_time, nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)), set()),
    "transformer with dropout": (
        lambda: pipe(in_time, nn.TransformerEncoderLayer(6, 2, 8, 0.1, batch_first=True)),
        set(),
    ),
    "layers dropped by Python's random": (lambda: pipe(dropping, nn.Linear(FEATURES, FEATURES)), set()),
    "attention": (lambda: pipe(attending, nn.Linear(FEATURES, FEATURES)), set()),
    "gru": (lambda: pipe(in_time, nn.GRU(FEATURES, FEATURES, batch_first=True)), set()),
}
"""Module, and the estimators that it does not support."""


class Recomputing(nn.Module):
    """Layers whose activations are recomputed in the backward pass, or not."""

    def __init__(self, *, recompute: bool, reentrant: bool = False) -> None:
        super().__init__()
        self.recompute, self.reentrant = recompute, reentrant
        self.body = nn.Sequential(
            nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 8)
        )
        self.stem, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(8, OUTPUTS)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x.unsqueeze(1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        hidden = checkpoint(self.hidden, x, use_reentrant=self.reentrant) if self.recompute else self.hidden(x)
        return self.head(hidden)


def twins(method: str = "online") -> tuple[Problem, Problem, LearnerState]:
    """The same module without and with recomputation, and a state that differs from the module's own tensors."""
    problems = []
    for recompute in (False, True):
        torch.manual_seed(0)
        problems.append(
            Problem(
                module=Recomputing(recompute=recompute).double(),
                learned=build_loss(LearnedLossSpec(), "classification", seed=1).double()
                if method == "online"
                else LearningRate(0.1).double(),
                task_loss=F.cross_entropy,
                base_loss=F.cross_entropy,
                optimizer=Sgd(momentum=0.9),
                draws_random=True,
            )
        )
    theta = {name: value + 0.5 * torch.randn_like(value) for name, value in problems[0].theta().items()}
    phi = {name: value.detach() for name, value in problems[0].learned.named_parameters()}
    optimizers = {"opt_state": Sgd(momentum=0.9).init(theta), "meta_state": Adam().init(phi)}
    return *problems, LearnerState(theta=theta, buffers=problems[0].buffers(), phi=phi, **optimizers)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.allclose(one[name], value, rtol=1e-12, atol=1e-14) for name, value in other.items())


@pytest.mark.parametrize("method", ["online", "online_lr"])
@pytest.mark.parametrize("steps", [1, 2])
def test_module_that_recomputes_activations_trains_like_its_twin(steps: int, method: str) -> None:
    plain, recompute, state = twins(method)
    *train, meta = ((torch.randn(ROWS, FEATURES).double(), torch.arange(ROWS) % OUTPUTS) for _ in range(steps + 1))
    ways = {"reverse": reverse}
    if method == "online":
        ways |= {"low": partial(exact, memory="low"), "fast": partial(exact, memory="fast"), "fd": finite_difference}
    for name, way in ways.items():
        results = []
        for problem in (plain, recompute):
            torch.manual_seed(3)
            results.append(way(problem, state, 0.1, train, meta))
        for part in ("phi_grad", "theta", "buffers", "opt_state"):
            assert same(getattr(results[1], part), getattr(results[0], part)), (name, part)
    steps_of = [partial(base_step, batch=train[0], lr=0.1)]
    rates = {"lr": 0.1, "eta": 0.01, "meta_optimizer": Adam(), "clip_norm": None}
    steps_of.append(partial(online_step, train=train[0], meta=meta, estimator=reverse, **rates))
    for step in steps_of:
        moved = []
        for problem in (plain, recompute):
            torch.manual_seed(3)
            moved.append(step(problem, state)[0])
        for part in ("theta", "buffers", "phi"):
            assert same(getattr(moved[1], part), getattr(moved[0], part)), (step, part)


@pytest.mark.parametrize("estimator", ["auto", "exact", "reverse", "finite_difference"])
def test_unsupported_recomputation_is_refused_with_torchs_reason(estimator: str) -> None:
    with pytest.raises(SpecError, match=r"^meta\.estimator: .*use_reentrant=False"):
        found(
            Recomputing(recompute=True, reentrant=True), torch.randn(ROWS, FEATURES), torch.float32, estimator=estimator
        )


@pytest.mark.parametrize("name", MODULES)
def test_every_estimator_equals_reverse_over_reverse_or_is_refused(name: str) -> None:
    torch.manual_seed(0)
    build, lacking = MODULES[name]
    module, x = build().double(), torch.randn(ROWS, FEATURES, dtype=torch.float64)
    wanted = found(module, x, estimator="reverse").phi_grad
    for way, settings in WAYS.items():
        if way in lacking:
            with pytest.raises(SpecError, match=r"^meta\.estimator: exact is not available .*reverse$"):
                found(module, x, **settings)
        else:
            assert distance(found(module, x, **settings).phi_grad, wanted) <= 1e-10, way


def test_plain_kernels_are_restored() -> None:
    module = MODULES["attention"][0]()
    enabled = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    found(module, torch.randn(ROWS, FEATURES), torch.float32)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled) == enabled


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"learned_loss": build_loss(LearnedLossSpec(), "classification", seed=1)},
            "^learned_loss: .* float64.*same dtype",
        ),
        (
            {"train": (torch.randn(ROWS, FEATURES).double(), torch.rand(ROWS, OUTPUTS))},
            "^learned_loss: .*one_hot is",
        ),
        ({"task_loss": nn.CrossEntropyLoss(reduction="none")}, "^task_loss: returns a tensor of shape"),
    ],
)
@pytest.mark.parametrize("estimator", ["auto", "exact"])
def test_mismatched_parts_are_one_message_and_no_other_estimator_is_tried(
    estimator: str, change: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.randn(ROWS, FEATURES).double(), torch.arange(ROWS) % OUTPUTS
    given = {
        "module": nn.Linear(FEATURES, OUTPUTS).double(),
        "optimizer": Sgd(),
        "learned_loss": build_loss(LearnedLossSpec(), "classification", seed=1).double(),
        "task_loss": F.cross_entropy,
        "train": batch,
        "meta": batch,
    }
    with pytest.raises(SpecError, match=says):
        meta_gradient(**{**given, **change}, lr=0.1, estimator=estimator)
    assert not caplog.records


def test_learning_rate_is_learned_through_two_steps_with_attention() -> None:
    torch.manual_seed(0)
    problem = Problem(
        module=MODULES["attention"][0](),
        learned=LearningRate(0.1),
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=Sgd(),
        draws_random=False,
    )
    batch = torch.randn(ROWS, FEATURES), torch.arange(ROWS) % OUTPUTS
    phi = {"alpha": torch.tensor(0.1)}
    state = LearnerState(theta={}, buffers={}, opt_state={}, phi=phi, meta_state=Adam().init(phi))
    chosen = choose_estimator("auto", "auto", 2, problem, batch)
    _, loss = init_step(
        problem,
        state,
        problem.theta(),
        {},
        [batch, batch],
        batch,
        lr=0.1,
        eta=0.01,
        estimator=chosen,
        meta_optimizer=Adam(),
        clip_norm=None,
    )
    assert loss.isfinite()


def test_module_may_require_its_batch_size() -> None:
    torch.manual_seed(0)
    module = pipe(lambda self, x: self.head(self.body(x) + torch.ones(ROWS, FEATURES)), nn.Linear(FEATURES, FEATURES))
    x, y = torch.randn(ROWS, FEATURES), torch.arange(ROWS) % OUTPUTS
    learned = build_loss(LearnedLossSpec(), "classification", seed=1)
    assert (
        distance(
            found(module, x, torch.float32).phi_grad, found(module, x, torch.float32, estimator="reverse").phi_grad
        )
        < 1e-4
    )
    learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1)
    assert learner.step((x, y), (x, y))["meta_loss"].isfinite()


class Steep(LearnedLoss):
    """A learned loss of a user's own class that overrides forward."""

    def forward(self, outputs_BC: Tensor, targets: Tensor) -> Tensor:
        return 3 * super().forward(outputs_BC, targets) + outputs_BC.square().mean()


def test_subclass_of_the_learned_loss_is_differentiated_by_its_own_forward() -> None:
    torch.manual_seed(0)
    base = build_loss(LearnedLossSpec(), "classification", seed=1).double()
    learned, module = Steep(base.network, base.kind), nn.Linear(FEATURES, OUTPUTS).double()
    x, y = torch.randn(ROWS, FEATURES).double(), torch.arange(ROWS) % OUTPUTS
    wanted, *others = (
        meta_gradient(module, Sgd(), learned, F.cross_entropy, (x, y), (x, y), lr=0.1, **way) for way in WAYS.values()
    )
    for other in others:
        assert distance(other.phi_grad, wanted.phi_grad) <= 1e-10


@pytest.mark.parametrize("memory", ["low", "fast"])
def test_learner_restores_pythons_random_state(memory: Memory) -> None:
    torch.manual_seed(0)
    module = MODULES["layers dropped by Python's random"][0]().double()
    x, y = torch.randn(ROWS, FEATURES, dtype=torch.float64), torch.arange(ROWS) % OUTPUTS
    learned = build_loss(LearnedLossSpec(), "classification", seed=1).double()
    wanted = found(module, x, estimator="reverse")
    learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1, estimator="exact", memory=memory)
    random.seed(2)
    metrics = learner.step((x, y), (x.flip(0), y.flip(0)))
    norm = torch.cat([value.reshape(-1) for value in wanted.phi_grad.values()]).norm()
    torch.testing.assert_close(metrics["grad_norm"], norm, rtol=1e-10, atol=0)
    torch.testing.assert_close(metrics["meta_loss"], wanted.meta_loss, rtol=1e-10, atol=0)


def test_inputs_may_be_integers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(20, 5), nn.Flatten(), nn.Linear(20, OUTPUTS)).double()
    tokens = torch.randint(20, (ROWS, 4))
    results = {name: found(module, tokens, **way).phi_grad for name, way in WAYS.items()}
    for name, value in results.items():
        assert distance(value, results["reverse"]) <= 1e-10, name


def test_outputs_must_be_one_tensor() -> None:
    module = Pipe(lambda self, x: (self.head(x), x), head=nn.Linear(FEATURES, OUTPUTS))
    with pytest.raises(SpecError, match=r"^module: returns a tuple, but must return one tensor"):
        found(module, torch.randn(ROWS, FEATURES), torch.float32)


def test_step_does_not_import_torchs_compiler() -> None:
    """It takes seconds, in each process of a sweep. (Creating one of torch's optimizers imports it as well.)"""
    code = (
        "import sys, torch; from torch import nn; from olfl_ray import OnlineLossLearner; "
        "from olfl_ray.engine import Sgd; from olfl_ray.losses import build_loss; from olfl_ray.spec import LearnedLossSpec; "
        "loss = build_loss(LearnedLossSpec(), 'classification', seed=0); "
        "learner = OnlineLossLearner(nn.Linear(3, 2), Sgd(), loss, nn.functional.cross_entropy, lr=0.1); "
        "batch = torch.randn(4, 3), torch.zeros(4, dtype=torch.long); learner.step(batch, batch); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


class Attending(nn.Module):
    """A learned loss with attention over the examples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.attend, self.out = nn.MultiheadAttention(2 * OUTPUTS, 2), nn.Linear(2 * OUTPUTS, 1)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        pairs = torch.cat([outputs, F.one_hot(targets, OUTPUTS).to(outputs)], 1)
        return self.out(self.attend(pairs, pairs, pairs, need_weights=False)[0]).mean()


@pytest.mark.parametrize("way", [*WAYS, "finite differences"])
def test_learned_loss_may_have_attention(way: str) -> None:
    torch.manual_seed(0)
    module, learned = nn.Linear(FEATURES, OUTPUTS).double(), Attending().double()
    x, y = torch.randn(ROWS, FEATURES).double(), torch.arange(ROWS) % OUTPUTS
    settings = WAYS.get(way, {"estimator": "finite_difference"})
    found = meta_gradient(module, Sgd(), learned, F.cross_entropy, (x, y), (x, y), lr=0.1, **settings)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        g = torch.autograd.grad(learned(module(x), y), list(module.parameters()), create_graph=True)
        weight, bias = (value - 0.1 * step for value, step in zip(module.parameters(), g, strict=True))
        loss = F.cross_entropy(F.linear(x, weight, bias), y)
        phi = torch.autograd.grad(loss, list(learned.parameters()), materialize_grads=True)
    wanted = dict(zip(found.phi_grad, phi, strict=True))
    assert distance(found.phi_grad, wanted) <= (1e-4 if way == "finite differences" else 1e-10)
