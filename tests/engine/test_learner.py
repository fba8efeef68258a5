"""The engine in a user's loop: equal to handwritten reverse over reverse; unavailable modes are refused by name."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import Adam, Optimizer, Sgd
from olfl_ray.engine.given import check_in_place
from olfl_ray.errors import SpecError
from olfl_ray.losses import LearnedLoss, LossNetwork, SmoothLeakyReLU

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_loop.py"


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)).double()
    network = LossNetwork((7,), SmoothLeakyReLU(), softplus_output=False, bias=False, init="kaiming_normal")
    return module, LearnedLoss(network, "classification").double()


def batches(count: int) -> list:
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.randn(16, 6, generator=generator, dtype=torch.float64),
            torch.randint(3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def by_hand(module: nn.Module, learned: nn.Module, pairs: list, lr: float, eta: float) -> None:
    """Algorithm 2 with momentum 0.9, written as in a paper's appendix; train passes update the module's buffers."""
    names = [name for name, _ in module.named_parameters()]
    velocity = [torch.zeros_like(value) for value in module.parameters()]
    meta = torch.optim.Adam(learned.parameters(), eta)
    for (x, y), (x_meta, y_meta) in pairs:
        theta = list(module.parameters())
        g = torch.autograd.grad(learned(module(x), y), theta, create_graph=True)
        moved_velocity = [0.9 * old + new for old, new in zip(velocity, g, strict=True)]
        ahead = [value - lr * step for value, step in zip(theta, moved_velocity, strict=True)]
        copies = {name: value.clone() for name, value in module.named_buffers()}
        outputs = torch.func.functional_call(module, dict(zip(names, ahead, strict=True)) | copies, (x_meta,))
        meta.zero_grad()
        F.cross_entropy(outputs, y_meta).backward()
        meta.step()
        with torch.no_grad():
            for value, new in zip(theta, ahead, strict=True):
                value.copy_(new)
        velocity = [value.detach() for value in moved_velocity]


def test_learner_equals_reverse_over_reverse_written_by_hand() -> None:
    data = batches(10)
    pairs = list(zip(data[:5], data[5:], strict=True))
    module, learned = parts()
    by_hand(module, learned, pairs, 0.1, 1e-2)
    ours, our_loss = parts()
    learner = OnlineLossLearner(
        ours, torch.optim.SGD(ours.parameters(), 0.1, momentum=0.9), our_loss, F.cross_entropy, eta=1e-2
    )
    for train, meta in pairs:
        metrics = learner.step(train, meta)
    assert metrics.keys() == {"base_loss", "task_loss", "meta_loss", "grad_norm"}
    for one, other in ((ours, module), (our_loss, learned)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-9, atol=1e-11)


def test_learner_follows_the_scheduler_of_a_torch_optimizer() -> None:
    module, learned = parts()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy)
    train, meta = batches(2)
    optimizer.param_groups[0]["lr"] = 0.0
    before = [value.clone() for value in module.parameters()]
    learner.step(train, meta)
    assert all(torch.equal(value, old) for value, old in zip(module.parameters(), before, strict=True))
    optimizer.param_groups[0]["lr"] = 0.1
    learner.step(train, meta)
    assert not torch.equal(module[0].weight, before[0])


def test_learner_follows_a_cyclic_scheduler_and_a_loaded_optimizer() -> None:
    """A cyclic schedule changes momentum with the rate; warnings are errors here, as torch's of a scheduler that steps first."""
    module, learned = parts()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=6)
    learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy)
    twin, twins_loss = parts()
    state, phi = {}, torch.optim.Adam(twins_loss.parameters(), 1e-5)
    train, meta = batches(2)
    for _ in range(5):
        group = dict(optimizer.param_groups[0])
        result = meta_gradient(
            twin,
            Sgd(momentum=group["momentum"]),
            twins_loss,
            F.cross_entropy,
            train,
            meta,
            lr=group["lr"],
            opt_state=state or None,
        )
        state = result.opt_state
        twin.load_state_dict({**result.theta, **result.buffers})
        for name, value in twins_loss.named_parameters():
            value.grad = result.phi_grad[name]
        phi.step()
        learner.step(train, meta)
        scheduler.step()
        optimizer.load_state_dict(optimizer.state_dict())
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.param_groups[0].update(momentum=0.0), "optimizer.momentum: is 0.0 now"),
        (lambda o: o.param_groups[0].update(maximize=True), "optimizer.maximize: is True"),
        (lambda o: o.state.update({"0": {}}), "optimizer: has already taken steps"),
    ],
)
def test_learner_refuses_a_change_of_the_optimizer_that_it_cannot_follow(change: Callable, message: str) -> None:
    module, learned = parts()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy)
    train, meta = batches(2)
    learner.step(train, meta)
    change(optimizer)
    with pytest.raises(SpecError, match=f"^{message}"):
        learner.step(train, meta)


def test_learner_resumes_from_its_state() -> None:
    data, found = batches(8), []
    for cut in (False, True):
        module, learned = parts()

        def make(module=module, learned=learned) -> OnlineLossLearner:
            return OnlineLossLearner(module, torch.optim.AdamW(module.parameters(), 0.01), learned, F.cross_entropy)

        learner = make()
        for index in range(4):
            learner.step(data[2 * index], data[2 * index + 1])
            if cut:
                state, learner = learner.state_dict(), make()
                learner.load_state_dict(state)
        found.append(torch.cat([value.detach().reshape(-1) for value in module.parameters()]))
    assert torch.equal(*found)


def test_meta_gradient_changes_nothing_and_equals_autograd() -> None:
    module, learned = parts()
    train, meta = batches(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = meta_gradient(module, Sgd(), learned, F.cross_entropy, train, meta, lr=0.1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(value.grad is None for value in [*module.parameters(), *learned.parameters()])
    names = [name for name, _ in module.named_parameters()]
    g = torch.autograd.grad(learned(module(train[0]), train[1]), list(module.parameters()), create_graph=True)
    ahead = {name: value - 0.1 * step for (name, value), step in zip(module.named_parameters(), g, strict=True)}
    loss = F.cross_entropy(torch.func.functional_call(module, ahead, (meta[0],)), meta[1])
    wanted = torch.autograd.grad(loss, list(learned.parameters()))
    for (name, _), value in zip(learned.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(found.phi_grad[name], value, rtol=1e-10, atol=1e-14)
    for name in names:
        torch.testing.assert_close(found.theta[name], ahead[name].detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda p: torch.optim.RMSprop(p),
            "optimizer: RMSprop is not supported",
        ),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "optimizer.amsgrad: is True, but must be False"),
        (lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.5), "optimizer.dampening: is 0.5, but must be 0"),
        (lambda p: torch.optim.SGD(p[:-1], 0.1), "optimizer: must hold all trainable parameters"),
        (lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:]}], 0.1), "optimizer: has 2 parameter groups"),
        (lambda p: Sgd(), "lr: is None"),
    ],
)
def test_optimizer_without_a_counterpart_is_refused_by_name(build, message: str) -> None:
    module, learned = parts()
    with pytest.raises(SpecError, match=f"^{message}"):
        OnlineLossLearner(module, build(list(module.parameters())), learned, F.cross_entropy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"meta": "Adam"}, "meta: is 'Adam', but must be one of adam, sgd"),
        ({"estimator": "revers"}, "estimator: there is no 'revers' .*'reverse'"),
        ({"memory": "lo"}, "memory: is 'lo', but must be one of auto, low, fast"),
        ({"precision": "half"}, "precision: is 'half', but must be one of float32, tf32, bf16"),
        ({"graph": True}, "graph: is True, but the module is on cpu; leave it out"),
        ({"module": nn.Linear(6, 3).requires_grad_(False)}, "module: has no parameters that require a gradient"),
        ({"learned_loss": nn.CrossEntropyLoss()}, "learned_loss: has no parameters that require a gradient"),
    ],
)
def test_invalid_argument_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    module, learned = parts()
    given = {"module": module, "optimizer": Adam(), "learned_loss": learned, "task_loss": F.cross_entropy, "lr": 0.1}
    with pytest.raises(SpecError, match=f"^{message}"):
        OnlineLossLearner(**{**given, **settings})
    if not settings.keys() & {"meta", "graph", "precision"}:
        train, meta = batches(2)
        with pytest.raises(SpecError, match=f"^{message}"):
            meta_gradient(train=train, meta=meta, **{**given, **settings})


@pytest.mark.parametrize("frozen", [True, False])
def test_parameters_frozen_or_unfrozen_later_are_refused_if_the_optimizer_has_state(frozen: bool) -> None:
    train, meta = batches(2)
    for optimizer in (Sgd(), Sgd(momentum=0.9)):
        module, learned = parts()
        module[3].bias.requires_grad_(frozen)
        learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy, lr=0.1)
        learner.step(train, meta)
        module[3].bias.requires_grad_(not frozen)
        if optimizer.momentum:
            with pytest.raises(SpecError, match=r"^module: has frozen or unfrozen 3\.bias since the learner was made"):
                learner.step(train, meta)
        else:
            learner.step(train, meta)


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (
            lambda module, loss: setattr(module[0].weight, "data", module[0].weight.data.clone()),
            r"module: has 0\.weight in",
        ),
        (lambda module, loss: setattr(module[1], "running_var", torch.ones(9)), r"module: has 1\.running_var in"),
        (lambda module, loss: loss.to(torch.float16), r"learned_loss: has network\.layers\.0\.weight, "),
    ],
)
def test_tensors_moved_after_a_capture_are_refused_by_name(move: Callable, says: str) -> None:
    module, learned = parts()
    learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1)
    train, meta = batches(2)
    learner.step(train, meta)
    check_in_place(learner._problem, learner._graphed.state)
    move(module, learned)
    with pytest.raises(SpecError, match=rf"^{says}.* make a new learner after such a change, or use graph=False$"):
        check_in_place(learner._problem, learner._graphed.state)


@pytest.mark.parametrize(("mine", "other"), [(Sgd(), Adam()), (Sgd(momentum=0.9), Adam()), (Adam(), Sgd())])
def test_state_of_another_optimizer_is_refused(mine: Optimizer, other: Optimizer) -> None:
    one, two = (OnlineLossLearner(*parts()[:1], each, parts()[1], F.cross_entropy, lr=0.1) for each in (mine, other))
    with pytest.raises(SpecError, match=r"^optimizer: has a state of other tensors"):
        one.load_state_dict(two.state_dict())


@pytest.mark.parametrize(
    ("settings", "flag", "dtype"),
    [
        ({}, torch.backends.cuda.matmul.fp32_precision, torch.float32),
        ({"precision": "float32"}, "ieee", torch.float32),
        ({"precision": "tf32"}, "tf32", torch.float32),
        ({"precision": "bf16"}, "ieee", torch.bfloat16),
        ({"deterministic": True}, "ieee", torch.float32),
    ],
)
def test_learners_passes_have_its_precision(settings: dict[str, Any], flag: str, dtype: torch.dtype) -> None:
    module, learned = nn.Linear(6, 3), parts()[1].float()
    seen, outside = set(), torch.backends.cuda.matmul.fp32_precision
    module.register_forward_hook(lambda _, x, out: seen.add((torch.backends.cuda.matmul.fp32_precision, out.dtype)))
    learner = OnlineLossLearner(module, Sgd(), learned, F.cross_entropy, lr=0.1, **settings)
    train, meta = ((x.float(), y) for x, y in batches(2))
    learner.step(train, meta)
    seen.clear()  # before its first step a learner is compared with a plain loop, in float32
    metrics = learner.step(train, meta)
    assert (flag, dtype) in seen
    assert {name for name, _ in seen} == {flag}
    assert metrics["meta_loss"].dtype == torch.float32
    assert torch.backends.cuda.matmul.fp32_precision == outside


@pytest.mark.parametrize("rows", [2, 16])
def test_data_loaders_list_is_one_batch(rows: int) -> None:
    module, learned = parts()
    train, meta = ((x[:rows], y[:rows]) for x, y in batches(2))
    wanted, found = (
        meta_gradient(module, Sgd(), learned, F.cross_entropy, kind(train), kind(meta), lr=0.1)
        for kind in (tuple, list)
    )
    assert all(torch.equal(found.phi_grad[name], value) for name, value in wanted.phi_grad.items())


def test_example_is_short_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 30
    runpy.run_path(str(EXAMPLE))
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 4
    assert losses[-1] < 1.0 < torch.log(torch.tensor(3.0))
