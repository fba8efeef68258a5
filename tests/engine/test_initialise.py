"""Algorithm 1 in one call: the code and the bits of a trial; it resumes to the same bits; arguments are refused by name."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import olfl_ray as ol
from olfl_ray import data
from olfl_ray.engine import Adam, Sgd
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec, TrialConfig
from olfl_ray.trial import TrialEnvironment, run
from olfl_ray.trial.build import build_replicate


def net(inputs: int = 64, outputs: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, outputs)
    )


def net_of_a_trial(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return net(math.prod(input_shape), outputs)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_it_gives_the_bits_of_a_trials_initialisation(tmp_path: Path, optimizer: str, inner_steps: int) -> None:
    config = TrialConfig.model_validate(
        {
            "task": {"dataset": "digits", "model": {"name": f"{__name__}:net_of_a_trial"}, "batch_size": 16},
            "learner": {"method": "online", "steps": 1, "optimizer": {"name": optimizer, "lr": 0.02}},
            "meta": {"init_steps": 7, "inner_steps": inner_steps, "clip_norm": 0.5},
            "eval": {"every": 3},
            "seeds": [4],
        }
    )
    place = TrialEnvironment(device="cpu", cache=tmp_path, data_root=None)
    replicate = build_replicate(config, place, data.load("digits", {}, cache=tmp_path, root=None), 4)
    *_, last = (progress for progress in run(config, place) if not progress.report)
    batches = replicate.data
    found = ol.initialise(
        net,
        copy.deepcopy(replicate.learnable),
        lambda number: batches.batch("init_train", "train", number),
        lambda number: batches.batch("init_meta", "meta", number),
        task_loss=F.cross_entropy,
        lr=0.02,
        optimizer=Adam() if optimizer == "adam" else Sgd(momentum=config.learner.optimizer.momentum),
        steps=7,
        inner_steps=inner_steps,
        meta_clip_norm=0.5,
        seed=4,
    )
    assert last.state.init_steps == found.steps == 7
    for name, value in last.state.replicates[0].learner.phi.items():
        assert torch.equal(found.learned_loss.state_dict()[name], value), name
    assert last.records[-1].mean("init/task_loss") == pytest.approx(found.losses[-1], abs=0)


def loss() -> nn.Module:
    return build_loss(LearnedLossSpec(), "classification", seed=1)


def batch(number: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(number)
    y = torch.randint(3, (8,), generator=draw)
    return torch.randn(8, 6, generator=draw) + y[:, None], y


def small() -> nn.Module:
    return net(6, 3)


def call(**changes: Any) -> ol.Initialised:
    given: dict[str, Any] = {
        "module_factory": small,
        "learned_loss": loss(),
        "train_batches": batch,
        "meta_batches": lambda number: batch(1000 + number),
        "task_loss": F.cross_entropy,
        "lr": 0.1,
        "steps": 6,
        "every": 2,
    }
    return ol.initialise(**{**given, **changes})


def phi(found: ol.Initialised) -> list[Tensor]:
    return [value.detach().clone() for value in found.learned_loss.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def test_it_leaves_the_global_random_state_and_learns() -> None:
    before = torch.get_rng_state()
    found = call(steps=40, inner_steps=2, eta=1e-2)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found.losses) == found.steps == 40
    assert sum(found.losses[-10:]) < sum(found.losses[:10])
    assert not same(phi(found), [value.detach() for value in loss().parameters()])
    assert same(phi(found), phi(call(steps=40, inner_steps=2, eta=1e-2)))
    assert not same(phi(found), phi(call(steps=40, inner_steps=2, eta=1e-2, seed=1)))


def test_it_resumes_to_the_same_bits_from_a_saved_state(tmp_path: Path) -> None:
    wanted = call()
    kept: list[Any] = []
    call(steps=5, progress=lambda found: kept.append(found.state))
    assert [len(state["losses"]) for state in kept] == [2, 4, 5]
    for state in kept:
        torch.save(state, tmp_path / "state.pt")
        found = call(state=torch.load(tmp_path / "state.pt"))
        assert found.losses == wanted.losses
        assert same(phi(found), phi(wanted))
    assert call(state=wanted.state).losses == wanted.losses


def test_batches_come_from_a_list_a_tuple_or_a_data_loader() -> None:
    fixed = [batch(number) for number in range(3)]
    by_list = call(train_batches=fixed, meta_batches=fixed[0])
    by_function = call(train_batches=lambda number: fixed[number % 3], meta_batches=lambda number: fixed[0])
    assert same(phi(by_list), phi(by_function))
    x, y = (torch.cat(parts) for parts in zip(*fixed, strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    by_loader, by_list = (
        call(module_factory=lambda: nn.Linear(6, 3), train_batches=train, meta_batches=fixed[0])
        for train in (loader, fixed)
    )
    assert same(phi(by_loader), phi(by_list))
    shuffled = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    one, other = (call(train_batches=shuffled, meta_batches=shuffled) for _ in range(2))
    assert same(phi(one), phi(other))
    with pytest.raises(SpecError, match=r"^train_batches: .*middle") as caught:
        call(train_batches=loader, state=by_list.state)
    assert caught.value.field == "train_batches"


def test_a_torch_optimizer_is_followed() -> None:
    own = call(optimizer=Sgd(momentum=0.9))
    torchs = call(lr=None, optimizer=lambda module: torch.optim.SGD(module.parameters(), 0.1, momentum=0.9))
    assert same(phi(own), phi(torchs))


def test_progress_prints_a_line_at_each_record(capsys: pytest.CaptureFixture[str]) -> None:
    call(progress=True)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"initialise: round {end} of 6" for end in (2, 4, 6)
    ]


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, *, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(x)}


def test_algorithm_2_continues_with_its_loss_and_its_calls() -> None:
    def named(number: int) -> tuple[dict[str, Tensor], Tensor]:
        x, y = batch(number)
        return {"x": x}, y

    found = call(
        module_factory=Keyword,
        train_batches=named,
        meta_batches=lambda number: named(1000 + number),
        select=lambda returned: returned["logits"],
        unpack=True,
    )
    assert same(phi(found), phi(call()))
    module = Keyword()
    learner = ol.OnlineLossLearner.from_initialised(found, module, torch.optim.SGD(module.parameters(), 0.1), eta=1e-3)
    before = phi(found)
    learner.step(named(0), named(1))
    assert learner.steps == 1
    assert not same(phi(found), before)


class Start(Learnable):
    """Where training starts, and nothing else."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.ones(3))
        self.name = "5.bias"

    def start(self, theta: Params) -> Params:
        return {name: value + self.offset if name == self.name else value for name, value in theta.items()}


def test_a_learned_start_is_where_algorithm_2_starts() -> None:
    found = call(learned_loss=Start(small()))
    module = small()
    before = module[5].bias.detach().clone()
    ol.OnlineLossLearner.from_initialised(found, module, torch.optim.SGD(module.parameters(), 0.1))
    torch.testing.assert_close(module[5].bias.detach(), before + found.learned_loss.offset.detach())
    assert not torch.equal(found.learned_loss.offset.detach(), torch.ones(3))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"inner_steps": 1.5}, "inner_steps"),
        ({"every": -1}, "every"),
        ({"eta": math.nan}, "eta"),
        ({"meta": "rmsprop"}, "meta"),
        ({"lr": None}, "lr"),
        ({"train_batches": []}, "train_batches"),
        ({"train_batches": 3}, "train_batches"),
        ({"meta_batches": [torch.zeros(3)]}, "meta_batches"),
        ({"meta_batches": iter([batch(0)])}, "meta_batches"),
        ({"train_batches": lambda number: batch(0)[0]}, "train_batches"),
        ({"module_factory": lambda: torch.zeros(3)}, "module_factory"),
        ({"state": {}}, "state"),
        ({"select": "logits"}, "select"),
        ({"unpack": True}, "unpack"),
        ({"lr": 1e30}, "eta"),
    ],
)
def test_an_argument_that_rounds_cannot_be_run_with_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        call(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["lr", "eta", "inner_steps", "seed", "meta"])
def test_a_state_of_other_settings_is_refused_by_the_first_that_differs(field: str) -> None:
    state = call(steps=2).state
    other = {"lr": 0.2, "eta": 1e-2, "inner_steps": 2, "seed": 7, "meta": "sgd"}[field]
    with pytest.raises(SpecError) as caught:
        call(state=state, **{field: other})
    assert caught.value.field == field


def test_a_factory_that_changes_its_mind_is_refused() -> None:
    widths = iter([3, 3, 3, 4])
    with pytest.raises(SpecError) as caught:
        call(module_factory=lambda: nn.Linear(6, next(widths)))
    assert caught.value.field == "module_factory"
