"""A learned loss records the range of targets and outputs that it sees; a loaded one warns once where a call leaves it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray import OnlineLossLearner
from olfl_ray.errors import DataError
from olfl_ray.losses import LearnedLoss, build_loss, loss_from_bytes, standalone
from olfl_ray.losses.seen import ranges_of
from olfl_ray.spec import LearnedLossSpec, TrialConfig
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes


def build(kind: str = "regression", **settings: Any) -> LearnedLoss:
    return build_loss(LearnedLossSpec.model_validate(settings), kind, seed=3)


def written(loss: LearnedLoss) -> LearnedLoss:
    files = loss.files()
    return loss_from_bytes(files["learned_loss.safetensors"], files["learned_loss.json"], "here")


def test_the_range_is_that_of_all_calls() -> None:
    loss = build()
    assert ranges_of(loss.seen) is None
    assert "seen" not in json.loads(loss.files()["learned_loss.json"])
    loss(torch.tensor([[-2.0], [1.0]]), torch.tensor([[0.5], [0.25]]))
    loss(torch.tensor([[3.0]]), torch.tensor([[-1.0]]))
    assert ranges_of(loss.seen) == {"target": [-1.0, 0.5], "output": [-2.0, 3.0]}
    classes = build("classification")
    outputs = torch.tensor([[0.0, 1.0, 3.0]])
    classes(outputs, torch.tensor([1]))
    shares = torch.softmax(outputs, -1)
    assert ranges_of(classes.seen) == {"target": [0.0, 1.0], "output": [shares.min().item(), shares.max().item()]}


def test_a_learners_steps_are_seen_and_its_probes_are_not() -> None:
    seen: list[Tensor] = []

    class Line(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    torch.manual_seed(0)
    module, loss = Line(3, 1), build()
    learner = OnlineLossLearner(module, torch.optim.SGD(module.parameters(), 0.01), loss, F.mse_loss)
    for _ in range(3):
        x, y = torch.randn(16, 3), torch.randn(16, 1)
        seen += [module(x).detach()]
        learner.step((x, y), (torch.randn(16, 3), torch.randn(16, 1)))
    ranges = ranges_of(loss.seen)
    assert ranges is not None
    assert ranges["output"] == pytest.approx([min(map(Tensor.min, seen)).item(), max(map(Tensor.max, seen)).item()])


def test_a_loaded_loss_warns_once_where_a_call_leaves_the_range(caplog: pytest.LogCaptureFixture) -> None:
    loss = build()
    loss(torch.linspace(-1, 1, 8)[:, None], torch.linspace(0, 1, 8)[:, None])
    loaded = written(loss)
    with caplog.at_level(logging.WARNING):
        loaded(torch.tensor([[1.01]]), torch.tensor([[0.5]]))
        assert not caplog.records
        loaded(torch.tensor([[5.0]]), torch.tensor([[0.5]]))
        loaded(torch.tensor([[6.0]]), torch.tensor([[9.0]]))
        (record,) = caplog.records
        assert "outputs from -1 to 1" in record.message
        again = written(loss)
        again(torch.tensor([[0.0]]), torch.tensor([[-3.0]]))
        assert "targets from 0 to 1" in caplog.records[1].message
        loss(torch.tensor([[50.0]]), torch.tensor([[0.5]]))
    assert len(caplog.records) == 2
    assert ranges_of(loaded.seen) == {"target": [0.0, 9.0], "output": [-1.0, 6.0]}


@pytest.mark.parametrize(
    "seen", [[], {"target": [0, 1]}, {"target": [0, 1], "output": [1, 0]}, {"target": 1, "output": 2}]
)
def test_a_range_that_is_none_is_refused(seen: Any) -> None:
    files = build().files()
    settings = json.loads(files["learned_loss.json"]) | {"seen": seen}
    with pytest.raises(DataError, match="not a learned loss"):
        loss_from_bytes(files["learned_loss.safetensors"], json.dumps(settings).encode(), "here")


def test_a_trial_keeps_the_range_over_a_cut_and_a_cached_initialisation(tmp_path: Path) -> None:
    config = TrialConfig.model_validate(
        {
            "task": {"dataset": "diabetes", "model": {"name": "mlp", "hidden": [8]}},
            "learner": {"method": "online", "steps": 8, "optimizer": {"name": "sgd", "lr": 0.01}},
            "meta": {"init_steps": 4},
            "eval": {"every": 4},
            "seeds": [1],
        }
    )
    place = TrialEnvironment(device="cpu", cache=tmp_path, data_root=None)

    class Cache(dict):  # type: ignore[type-arg]
        def put(self, key: str, value: bytes) -> None:
            self[key] = value

    cache = Cache()
    whole = list(run(config, place, None, cache))
    kept = json.loads(whole[-1].files["learned_loss.json"])["seen"]
    assert kept["target"][0] < -0.5 < 0.5 < kept["target"][1]
    for progress in whole[:-1]:
        *_, last = run(config, place, state_from_bytes(state_to_bytes(progress.state)))
        assert last.files == whole[-1].files
    assert len(cache) == 1
    *_, cached = run(config, place, None, cache)
    assert cached.files == whole[-1].files


def module_of(text: str) -> Any:
    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "exported.py", "exec"), space)
    return space["LearnedLoss"]()


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reduction": "sum", "bias": True, "hidden": [5]},
        {"name": "ml3"},
        {"activation": {"name": "tanh"}, "output": "softplus"},
        {"activation": {"name": "softplus"}},
    ],
)
def test_the_standalone_file_gives_the_same_loss_and_gradients(kind: str, settings: dict[str, Any]) -> None:
    loss = build(kind, **settings)
    outputs = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(7) % 3 if kind == "classification" else outputs.flip(0)
    loss(outputs, targets)
    text = standalone(loss, ['Learned on """digits""" \\ by hand.'])
    assert "olfl_ray import" not in text
    assert len(text.splitlines()) < 200
    alone = module_of(text)
    found = []
    for one in (loss, alone):
        f = outputs.clone().requires_grad_()
        value = one(f, targets)
        grads = torch.autograd.grad(value, [f, *one.parameters()])
        found.append([value, *grads])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    with pytest.warns(UserWarning, match="has seen"):
        alone(outputs * 100, targets)
    alone(outputs * 100, targets)


def test_a_loss_of_your_own_code_is_no_standalone_file() -> None:
    with pytest.raises(DataError, match="standalone"):
        standalone(LearnedLoss(torch.nn.Bilinear(1, 1, 1), "regression"))
