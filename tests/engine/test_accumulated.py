"""A base step on micro-batches: theta' and phi's gradient are those of torch's graph of a loop that accumulates."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import OnlineLossLearner
from olfl_ray.engine import Adam, Optimizer, Sgd
from olfl_ray.engine.estimators import choice
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

ETA, LR = 0.05, 0.1
WAYS: list[dict[str, Any]] = [
    {},
    {"estimator": "exact", "memory": "low"},
    {"estimator": "exact", "memory": "fast"},
    {"estimator": "reverse"},
]


class Decayed(Learnable):
    """phi enters in the loss, a penalty, and the update."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_loss(LearnedLossSpec(), "classification", seed=1)
        self.strength, self.rate = nn.Parameter(torch.tensor(0.02)), nn.Parameter(torch.tensor(0.2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.inner(outputs, targets)

    def penalty(self, theta: Params) -> Tensor:
        return self.strength * torch.stack([value.square().sum() for value in theta.values()]).sum()

    def update(self, optimizer: Any, theta: Params, g: dict[str, Tensor], state: Params, lr: Any) -> Any:
        return optimizer.update(theta, g, state, lr * self.rate.exp())


def loss_only() -> nn.Module:
    return build_loss(LearnedLossSpec(), "classification", seed=1)


def net(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(dropout), nn.Linear(9, 3)).double()


def batches(count: int, rows: int = 8) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [
        (torch.randn(rows, 6, generator=draw, dtype=torch.float64), torch.randint(3, (rows,), generator=draw))
        for _ in range(count)
    ]


def by_hand(
    module: nn.Module, learned: Any, optimizer: Optimizer, state: Any, train: list, meta: list
) -> tuple[dict[str, Tensor], Any, list[Tensor]]:
    """theta', the optimizer's state after it, and phi's gradient through torch's graph."""
    theta = dict(module.named_parameters())
    losses = []
    for x, y in train:
        losses.append(learned(module(x), y) / len(train))
    total = sum(losses)
    if isinstance(learned, Decayed):
        total = total + learned.penalty(theta)
    g = dict(zip(theta, torch.autograd.grad(total, list(theta.values()), create_graph=True), strict=True))
    if isinstance(learned, Decayed):
        ahead, state = learned.update(optimizer, theta, g, state, LR)
    else:
        ahead, state = optimizer.update(theta, g, state, LR)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    outer = sum(
        F.cross_entropy(
            torch.func.functional_call(module, {**ahead, **{k: v.clone() for k, v in buffers.items()}}, (x,)), y
        )
        for x, y in meta
    ) / len(meta)
    return ahead, state, list(torch.autograd.grad(outer, list(learned.parameters())))


@pytest.mark.parametrize("make", [loss_only, Decayed])
@pytest.mark.parametrize("optimizer", [Sgd(momentum=0.9, weight_decay=0.01), Adam(eps=1e-3), Sgd(clip_norm=0.05)])
def test_steps_and_gradients_are_those_of_a_plain_loop(make: Any, optimizer: Optimizer) -> None:
    for settings in WAYS:
        data = batches(10)
        module, twin = net(), net()
        learned, twins = make().double(), make().double()
        learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy, lr=LR, eta=ETA, meta="sgd", **settings)
        state = optimizer.init(dict(twin.named_parameters()))
        for start in (0, 5):
            train, meta = data[start : start + 3], data[start + 3 : start + 5]
            metrics = learner.step_accumulated(train, meta)
            ahead, state, grads = by_hand(twin, twins, optimizer, state, train, meta)
            with torch.no_grad():
                for name, value in twin.named_parameters():
                    value.copy_(ahead[name])
                for value, grad in zip(twins.parameters(), grads, strict=True):
                    value.sub_(ETA * grad)
            state = {name: value.detach() for name, value in state.items()}
            for one, other in ((module, twin), (learned, twins)):
                for name, value in other.state_dict().items():
                    torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name)
        assert metrics.keys() == {"base_loss", "task_loss", "meta_loss", "grad_norm"}
        assert learner.steps == 2


def test_one_micro_batch_is_an_ordinary_step_and_kinds_of_step_may_take_turns() -> None:
    found = []
    for accumulates in (False, True):
        module, learned = net(0.3), loss_only().double()
        learner = OnlineLossLearner(module, Adam(), learned, F.cross_entropy, lr=0.01, eta=1e-2)
        torch.manual_seed(5)
        for index, batch in enumerate(batches(6)):
            if accumulates and index % 2:
                learner.step_accumulated([batch], [batch])
            else:
                learner.step(batch, batch)
        found.append([*module.state_dict().values(), *learned.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_equal_micro_batches_without_batch_norm_are_one_large_batch() -> None:
    parts = batches(4)
    large = tuple(torch.cat(values) for values in zip(*parts, strict=True))
    found = []
    for accumulates in (False, True):
        torch.manual_seed(0)
        module, learned = nn.Linear(6, 3).double(), loss_only().double()
        learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1, eta=1e-2)
        step = learner.step_accumulated if accumulates else learner.step
        step(*((parts, parts) if accumulates else (large, large)))
        found.append([*module.state_dict().values(), *learned.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_two_draws_of_dropout_are_the_same_in_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """exact and reverse draw the masks in the same order, so that their steps agree."""
    found = []
    for settings in WAYS:
        module, learned = net(0.4), loss_only().double()
        learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1, eta=1e-2, **settings)
        torch.manual_seed(5)
        for _ in range(3):
            learner.step_accumulated(batches(6)[:3], batches(6)[3:])
        found.append([*module.state_dict().values(), *learned.state_dict().values()])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("train", "field"),
    [
        ([], "train_batches"),
        (batches(1)[0], "train_batches"),
        ([batches(1)[0][0]], "train_batches"),
        (None, "train_batches"),
    ],
)
def test_what_is_no_list_of_batches_is_refused(train: Any, field: str) -> None:
    learner = OnlineLossLearner(net(), Sgd(), loss_only().double(), F.cross_entropy, lr=0.1)
    with pytest.raises(SpecError) as caught:
        learner.step_accumulated(train, batches(2))
    assert caught.value.field == field


def test_finite_differences_have_no_such_step() -> None:
    learner = OnlineLossLearner(
        net(), Sgd(), loss_only().double(), F.cross_entropy, lr=0.1, estimator="finite_difference"
    )
    with pytest.raises(SpecError) as caught:
        learner.step_accumulated(batches(2), batches(2))
    assert caught.value.field == "estimator"
    assert set(choice.ACCUMULATED) == {"low", "fast", "reverse"}
