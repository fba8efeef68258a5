"""Repeated calls of `meta_gradient` probe a module once, and again where anything that decides the estimator has changed."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import meta_gradient
from olfl_ray.engine import Sgd, metagradient
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec


class Net(nn.Module):
    """It holds itself, as modules with a bound method in an attribute do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(5, 7), nn.Dropout(0.0), nn.Linear(7, 3)
        self.act = self.squashed

    def squashed(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.act(self.body(x))))


class Parts:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        self.module, self.loss = Net(), build_loss(LearnedLossSpec(), "classification", seed=1)
        self.given: dict[str, Any] = {
            "optimizer": Sgd(momentum=0.9),
            "task_loss": F.cross_entropy,
            "train": self.batch(),
            "meta": self.batch(),
            "lr": 0.1,
        }
        self.probed = 0
        probe = metagradient.probe

        def counting(*given: Any) -> None:
            self.probed += 1
            probe(*given)

        monkeypatch.setattr(metagradient, "probe", counting)

    def batch(self, rows: int = 8) -> tuple[Tensor, Tensor]:
        return torch.randn(rows, 5), torch.randint(3, (rows,))

    def call(self, **changes: Any) -> Any:
        return meta_gradient(module=self.module, learned_loss=self.loss, **{**self.given, **changes})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


def test_a_module_is_probed_once(parts: Parts) -> None:
    first = parts.call()
    for _ in range(3):
        again = parts.call()
        assert all(torch.equal(again.phi_grad[name], value) for name, value in first.phi_grad.items())
    parts.call(train=parts.batch(), meta=parts.batch(), lr=0.2)
    with torch.no_grad():
        parts.module.body.weight.mul_(0.9)
    parts.call()
    assert parts.probed == 1


CHANGES: dict[str, Callable[[Parts], object]] = {
    "a submodule": lambda parts: setattr(parts.module, "body", nn.Linear(5, 7)),
    "a new submodule": lambda parts: setattr(parts.module, "more", nn.Linear(2, 2)),
    "a mode": lambda parts: parts.module.drop.eval(),
    "a hook": lambda parts: parts.module.head.register_forward_hook(lambda *_: None),
    "a frozen parameter": lambda parts: parts.module.head.bias.requires_grad_(False),
    "a type": lambda parts: (parts.module.double(), parts.loss.double(), _doubled(parts)),
    "the learned loss": lambda parts: setattr(parts, "loss", build_loss(LearnedLossSpec(), "classification", seed=1)),
    "a part of the learned loss": lambda parts: parts.loss.network.layers[0].register_forward_hook(lambda *_: None),
    "the task loss": lambda parts: parts.given.update(task_loss=lambda outputs, y: F.cross_entropy(outputs, y)),
    "the optimizer": lambda parts: parts.given.update(optimizer=Sgd()),
    "the estimator": lambda parts: parts.given.update(estimator="reverse"),
    "the batch's form": lambda parts: parts.given.update(train=parts.batch(6)),
    "the steps": lambda parts: parts.given.update(train=[parts.batch(), parts.batch()]),
}


def _doubled(parts: Parts) -> None:
    parts.given.update({name: (parts.given[name][0].double(), parts.given[name][1]) for name in ("train", "meta")})


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_probed_again_after_a_change(parts: Parts, change: str) -> None:
    parts.call()
    CHANGES[change](parts)
    parts.call()
    assert parts.probed == 2
    parts.call()
    assert parts.probed == 2


def test_settings_that_take_turns_are_each_probed_once(parts: Parts) -> None:
    for _ in range(3):
        for memory in ("low", "fast"):
            parts.call(estimator="exact", memory=memory)
    assert parts.probed == 2


def test_a_hook_on_a_parameter_is_refused_at_the_next_call(parts: Parts) -> None:
    parts.call()
    parts.module.head.weight.register_hook(lambda grad: grad)
    with pytest.raises(SpecError, match=r"^module: has a hook"):
        parts.call()


def test_what_is_remembered_keeps_no_module_alive(parts: Parts) -> None:
    parts.call()
    kept = weakref.ref(parts.module), weakref.ref(parts.loss), weakref.ref(parts.module.body)
    del parts.module, parts.loss
    gc.collect()
    assert [one() for one in kept] == [None, None, None]
