"""Arguments of the engine in a user's own loop: trees of tensors work, an invalid argument is one message that names it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from support.problems import distance
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import Adam, Sgd
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

WAYS: list[dict[str, Any]] = [
    {"estimator": "auto"},
    {"estimator": "exact", "memory": "low"},
    {"estimator": "exact", "memory": "fast"},
    {"estimator": "reverse"},
    {"estimator": "finite_difference"},
]


class Scaled(nn.Module):
    """A learned loss with one weight per class; accepts targets of any form."""

    def __init__(self, take: Callable[[Any], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.p, self.take = nn.Parameter(torch.tensor([0.7, 1.2, -0.4], dtype=torch.float64)), take

    def forward(self, outputs: Tensor, targets: Any) -> Tensor:
        return F.cross_entropy(outputs * self.p, self.take(targets))


class Taking(nn.Module):
    """A linear layer on what a function extracts from the inputs."""

    def __init__(self, take: Callable[[Any], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.take = nn.Linear(5, 3).double(), take

    def forward(self, x: Any) -> Tensor:
        return self.a(self.take(x))


class Named(NamedTuple):
    first: Tensor
    second: Tensor


def plain(count: int = 1, rows: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(rows, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (rows,), generator=generator),
        )
        for _ in range(count)
    ]


TREES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "dict": (lambda v: {"v": v, "other": torch.zeros(len(v), 2)}, lambda tree: tree["v"]),
    "tuple": (lambda v: (v, v), lambda tree: tree[0]),
    "list": (lambda v: [v, v, v], lambda tree: tree[2]),
    "named tuple": (lambda v: Named(v, v), lambda tree: tree.second),
    "nested, with a number and None": (lambda v: {"a": (v, None), "n": 3}, lambda tree: tree["a"][0]),
    "with a tensor that has no examples": (lambda v: (v, torch.eye(4), torch.tensor(2.0)), lambda tree: tree[0]),
}


@pytest.mark.parametrize("tree", TREES)
def test_inputs_and_targets_may_be_trees_of_tensors(tree: str) -> None:
    make, take = TREES[tree]
    (train, second, meta) = plain(3)
    wrapped = [tuple(make(part) for part in batch) for batch in (train, second, meta)]

    def task(outputs: Tensor, targets: Any) -> Tensor:
        return F.cross_entropy(outputs, take(targets))

    for way in WAYS:
        for several in (False, True):
            plainly: Any = [train, second] if several else train
            trees: Any = wrapped[:2] if several else wrapped[0]
            wanted = meta_gradient(Taking(), Sgd(), Scaled(), F.cross_entropy, plainly, meta, lr=0.1, **way)
            found = meta_gradient(Taking(take), Sgd(), Scaled(take), task, trees, wrapped[2], lr=0.1, **way)
            assert distance(found.phi_grad, wanted.phi_grad) <= 1e-10, way
            assert distance(found.theta, wanted.theta) <= 1e-14, way
        learners = [
            OnlineLossLearner(Taking(*of), Sgd(), Scaled(*of), loss, lr=0.1, **way)
            for of, loss in (((), F.cross_entropy), ((take,), task))
        ]
        metrics = [learners[0].step(train, meta), learners[1].step(wrapped[0], wrapped[2])]
        for name, value in metrics[0].items():
            torch.testing.assert_close(metrics[1][name], value, rtol=1e-9, atol=0)


def test_one_batch_is_distinguished_from_several_by_structure() -> None:
    """A tuple is one batch, a list of pairs is one batch per step, a data loader's list of two is one batch."""
    first, second = (lambda x: x[0]), plain(3)
    one, two, meta = second

    def run(train: Any, module: nn.Module, meta: Any = meta) -> Tensor:
        return meta_gradient(module, Sgd(), Scaled(), F.cross_entropy, train, meta, lr=0.1).theta["a.weight"]

    assert torch.equal(run(list(one), Taking()), run(one, Taking()))
    assert torch.equal(run([one], Taking()), run(one, Taking()))
    assert not torch.equal(run([one, two], Taking()), run(one, Taking()))
    assert torch.equal(run([list(one), list(two)], Taking()), run([one, two], Taking()))
    pair = (one[0], one[0])
    assert torch.equal(run([pair, one[1]], Taking(first), (pair, one[1])), run(one, Taking()))


def learner(**settings: Any) -> OnlineLossLearner:
    given = {"module": Taking(), "optimizer": Sgd(), "learned_loss": Scaled(), "task_loss": F.cross_entropy, "lr": 0.1}
    given = {**given, **settings}
    if not isinstance(given["optimizer"], (Sgd, Adam)):
        given["lr"] = settings.get("lr")
    return OnlineLossLearner(**given)


def gradient(**settings: Any) -> Any:
    train, meta = plain(2)
    given = {
        "module": Taking(),
        "optimizer": Sgd(),
        "learned_loss": Scaled(),
        "task_loss": F.cross_entropy,
        "train": train,
        "meta": meta,
        "lr": 0.1,
    }
    return meta_gradient(**{**given, **settings})


def shared() -> dict[str, Any]:
    module, loss = Taking(), Scaled()
    loss.net = module
    return {"module": module, "learned_loss": loss}


BATCH = plain()[0]
PARTS: list[tuple[Callable[[], dict[str, Any]], str, str]] = [
    (lambda: {"learned_loss": F.cross_entropy}, "learned_loss", "nn.Module"),
    (lambda: {"module": torch.sin}, "module", "nn.Module"),
    (lambda: {"learned_loss": nn.CrossEntropyLoss()}, "learned_loss", "no parameters"),
    (lambda: {"module": nn.Tanh()}, "module", "no parameters"),
    (lambda: {"module": nn.LazyLinear(3)}, "module", "without a shape"),
    (shared, "learned_loss", "parameters of the module"),
    (lambda: {"learned_loss": Scaled().to("meta")}, "learned_loss", "meta"),
    (lambda: {"task_loss": "mse"}, "task_loss", "called"),
    (lambda: {"optimizer": "sgd"}, "optimizer", "a str"),
    (lambda: {"optimizer": torch.optim.SGD(Taking().parameters(), 0.1), "lr": None}, "optimizer", "all trainable"),
    (lambda: {"lr": math.nan}, "lr", "nan"),
    (lambda: {"lr": -0.1}, "lr", "at least 0"),
    (lambda: {"lr": math.inf}, "lr", "inf"),
    (lambda: {"lr": "fast"}, "lr", "'fast'"),
]


@pytest.mark.parametrize(("settings", "field", "says"), PARTS)
@pytest.mark.parametrize("call", [learner, gradient])
def test_invalid_part_is_refused_by_name(
    call: Callable, settings: Callable[[], dict[str, Any]], field: str, says: str
) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        call(**settings())
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        ({"eta": -1.0}, "eta", "at least 0"),
        ({"eta": math.nan}, "eta", "nan"),
        ({"meta_clip_norm": 0.0}, "meta_clip_norm", "above 0"),
        ({"meta_clip_norm": -1.0}, "meta_clip_norm", "above 0"),
        ({"meta_clip_norm": math.nan}, "meta_clip_norm", "nan"),
    ],
)
def test_invalid_number_of_a_learner_is_refused_by_name(settings: dict, field: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        learner(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Sgd(momentum=-0.1), "momentum"),
        (lambda: Sgd(momentum=math.nan), "momentum"),
        (lambda: Sgd(weight_decay=-1.0), "weight_decay"),
        (lambda: Sgd(nesterov=True), "nesterov"),
        (lambda: Sgd(clip_norm=0.0), "clip_norm"),
        (lambda: Sgd(clip_norm=math.inf), "clip_norm"),
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Adam(beta1=-0.1), "beta1"),
        (lambda: Adam(beta2=math.nan), "beta2"),
        (lambda: Adam(eps=-1e-8), "eps"),
        (lambda: Adam(weight_decay=math.inf), "weight_decay"),
        (lambda: Adam(clip_norm=-1.0), "clip_norm"),
    ],
)
def test_invalid_number_of_an_optimizer_is_refused_by_name(make: Callable, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ([], "is empty"),
        ((batch for batch in plain(2)), "generator.*list"),
        (BATCH[0], "a Tensor"),
        ({"x": BATCH[0], "y": BATCH[1]}, "a dict"),
        ((*BATCH, BATCH[1]), "a tuple of 3"),
        ((BATCH, BATCH, BATCH), "a tuple of 3"),
        ([BATCH, BATCH[0], BATCH], "a Tensor at 1"),
        ((BATCH[0][:0], BATCH[1][:0]), "no examples"),
        (({"x": BATCH[0][:0]}, BATCH[1][:0]), "no examples"),
        ([BATCH, (BATCH[0][:0], BATCH[1][:0])], "no examples"),
        ((BATCH[0].to("meta"), BATCH[1]), "is on meta"),
        ((BATCH[0], {"y": (BATCH[1].to("meta"),)}), "is on meta"),
    ],
)
def test_invalid_batches_are_refused_by_name(train: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        gradient(train=train)
    assert caught.value.field == "train"
    if not isinstance(train, list):
        ours = learner()
        before = [value.clone() for value in ours._graphed.state.theta.values()]
        for field in ("train_batch", "meta_batch"):
            with pytest.raises(SpecError) as caught:
                ours.step(**{"train_batch": BATCH, "meta_batch": BATCH, field: train})
            assert caught.value.field == field
        assert all(map(torch.equal, before, ours._graphed.state.theta.values()))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda ours, optimizer: setattr(ours, "eta", math.nan), "eta"),
        (lambda ours, optimizer: optimizer.param_groups[0].update(lr=-1.0), "optimizer.lr"),
        (lambda ours, optimizer: optimizer.param_groups[0].update(lr=math.nan), "optimizer.lr"),
        (lambda ours, optimizer: optimizer.param_groups[0].update(momentum=math.nan), "optimizer.momentum"),
        (lambda ours, optimizer: optimizer.param_groups[0].update(weight_decay=-1.0), "optimizer.weight_decay"),
    ],
)
def test_invalid_numbers_from_a_scheduler_are_refused_before_the_step(change: Callable, field: str) -> None:
    module = Taking()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    ours = learner(module=module, optimizer=optimizer, lr=None)
    ours.step(BATCH, BATCH)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    change(ours, optimizer)
    with pytest.raises(SpecError) as caught:
        ours.step(BATCH, BATCH)
    assert caught.value.field == field
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def changed(state: dict[str, Any], part: str, **tensors: Any) -> dict[str, Any]:
    return {**state, part: {**state[part], **tensors}}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda state: {}, "state"),
        (lambda state: None, "state"),
        (lambda state: {"optimizer": state["optimizer"]}, "state"),
        (lambda state: {**state, "scheduler": {}}, "state"),
        (lambda state: {**state, "optimizer": None}, "optimizer"),
        (lambda state: {**state, "meta_optimizer": {}}, "meta_optimizer"),
        (lambda state: changed(state, "optimizer", extra=torch.zeros(1)), "optimizer"),
        (lambda state: changed(state, "optimizer", **{"a.bias": torch.ones(4).double()}), "optimizer"),
        (lambda state: changed(state, "optimizer", **{"a.bias": torch.ones(3)}), "optimizer"),
        (lambda state: changed(state, "meta_optimizer", **{"m.p": torch.ones(4).double()}), "meta_optimizer"),
        (lambda state: changed(state, "meta_optimizer", **{"v.p": 1.0}), "meta_optimizer"),
        (lambda state: {**state, "steps": -1}, "steps"),
        (lambda state: {**state, "eta": math.nan}, "eta"),
        (lambda state: {**state, "optimizer_settings": {"lr": 0.1}}, "optimizer_settings"),
        (lambda state: changed(state, "module", **{"a.bias": torch.ones(3)}), "module"),
        (lambda state: {key: value for key, value in state.items() if key != "learned_loss"}, "state"),
        (lambda state: changed(state, "learned_loss", p=torch.ones(4)), "learned_loss"),
    ],
)
def test_mismatched_state_dict_is_refused_and_nothing_is_copied(change: Callable, field: str) -> None:
    other, ours = (learner(optimizer=Sgd(momentum=0.9)) for _ in range(2))
    other.step(BATCH, BATCH)
    before = ours.state_dict()
    with pytest.raises(SpecError) as caught:
        ours.load_state_dict(change(other.state_dict()))
    assert caught.value.field == field
    for part, value in ours.state_dict().items():
        if isinstance(value, dict):
            assert all(torch.equal(tensor, before[part][name]) for name, tensor in value.items())
        else:
            assert value == before[part]


@pytest.mark.parametrize(
    "state", [{}, {"a.weight": torch.zeros(3, 5).double()}, {"a.weight": 1, "a.bias": 2}, Sgd(), None]
)
def test_opt_state_with_another_structure_is_refused(state: Any) -> None:
    given = {"optimizer": Sgd(momentum=0.9)}
    if state is None:
        state = Adam().init(dict(Taking().named_parameters()))
    with pytest.raises(SpecError) as caught:
        gradient(**given, opt_state=state)
    assert caught.value.field == "opt_state"


class Giving(Taking):
    """A module that returns a function of its outputs."""

    def __init__(self, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Any) -> Any:
        return self.give(super().forward(x))


class Losing(Scaled):
    """A learned loss that returns a function of its values per class."""

    def __init__(self, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, outputs: Tensor, targets: Any) -> Any:
        return self.give((outputs * self.p).logsumexp(1))


FORMS: list[tuple[dict[str, Any], str, str]] = [
    ({"module": Giving(lambda o: (o, o))}, "module", "tuple"),
    ({"module": Giving(lambda o: {"logits": o})}, "module", "dict"),
    ({"module": Giving(lambda o: None)}, "module", "NoneType"),
    ({"module": Giving(lambda o: o.detach())}, "module", "detach"),
    ({"module": Giving(lambda o: o.round().detach())}, "module", "gradient"),
    ({"module": nn.Linear(4, 3).double()}, "module", r"\(6, 5\) float64.*shapes"),
    ({"module": nn.Linear(5, 3)}, "module", "types"),
    ({"learned_loss": Losing(lambda v: v)}, "learned_loss", "shape"),
    ({"learned_loss": Losing(lambda v: v.mean().item())}, "learned_loss", "float"),
    ({"learned_loss": Losing(lambda v: v.mean().detach())}, "learned_loss", "detach"),
    ({"learned_loss": Losing(lambda v: v.argmax())}, "learned_loss", "int64"),
    ({"learned_loss": Losing(lambda v: v @ v[:1])}, "learned_loss", "matching shapes"),
    ({"task_loss": lambda o, y: F.cross_entropy(o, y, reduction="none")}, "task_loss", "mean"),
    ({"task_loss": lambda o, y: F.cross_entropy(o, y).item()}, "task_loss", "float"),
    ({"task_loss": lambda o, y: F.cross_entropy(o, y).detach()}, "task_loss", "detach"),
    ({"task_loss": lambda o, y: (o.argmax(1) != y).double().mean()}, "task_loss", "argmax"),
    ({"task_loss": F.cross_entropy, "meta": (BATCH[0], BATCH[1][:4])}, "task_loss", "shapes"),
    ({"train": (BATCH[0], BATCH[1][:4])}, "learned_loss", "shapes"),
]


@pytest.mark.parametrize(("settings", "field", "says"), FORMS)
@pytest.mark.parametrize("estimator", ["auto", "reverse"])
def test_result_of_each_part_is_checked_and_the_part_is_named(
    settings: dict[str, Any], field: str, says: str, estimator: str
) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        gradient(**settings, estimator=estimator)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_submodules_in_eval_mode_stay_so_and_a_module_in_eval_mode_is_refused() -> None:
    """Fine-tuning with a frozen batch norm: its statistics are used and not updated, as in a plain loop."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.5), nn.Linear(7, 3)).double()

    found = []
    for way in (None, *WAYS[:-1]):
        module, loss = make(), build_loss(LearnedLossSpec(), "classification", seed=0).double()
        module[1].eval()
        module[3].eval()
        if way is None:
            optimizer = torch.optim.SGD(module.parameters(), 0.1)
            loss(module(BATCH[0]), BATCH[1]).backward()
            optimizer.step()
        else:
            ours = learner(module=module, learned_loss=loss, **way)
            ours.step(BATCH, BATCH)
            assert [part.training for part in module] == [True, False, True, False, True]
            module.eval()
            with pytest.raises(SpecError, match="train"):
                ours.step(BATCH, BATCH)
        found.append(module.state_dict())
    for state in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_step_hooks_of_a_torch_optimizer_are_refused_since_it_is_never_stepped(register: str) -> None:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    getattr(optimizer, register)(lambda *_: None)
    with pytest.raises(SpecError, match=r"optimizer.*hooks"):
        OnlineLossLearner(module, optimizer, nn.Linear(1, 1), nn.functional.cross_entropy)
