"""A step that a GPU can replay: it reads no value, stays on its device, and updates its state in place, bit for bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.problems import LEARNERS, OPTIMIZERS, Case, case
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import olfl_ray.engine.graphed as engine_graphed
from olfl_ray import OnlineLossLearner
from olfl_ray.engine import (
    Adam,
    Graphed,
    LearnerState,
    Metrics,
    Sgd,
    arithmetic,
    base_step,
    clone_state,
    exact,
    finite_difference,
    init_step,
    online_step,
    reverse,
)
from olfl_ray.methods.online_lr import LearningRate

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ESTIMATORS = {
    "reverse": reverse,
    "exact, low": partial(exact, memory="low"),
    "exact, fast": partial(exact, memory="fast"),
    "finite difference": finite_difference,
}
Inputs = Sequence[Any]


class OnMeta(TorchDispatchMode):
    """Every tensor that an operator receives is on the meta device, whose tensors have no values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor):
                assert value.is_meta, f"{func} takes a tensor of {value.device}"
        return func(*args, **(kwargs or {}))


def scene(found: Case, device: str) -> tuple[LearnerState, list[Tensor]]:
    """The state of a case and its batches, on a device."""
    parts = {"theta": found.theta, "buffers": found.buffers, "opt_state": found.state, "phi": found.phi}
    moved = {part: {name: value.to(device) for name, value in own.items()} for part, own in parts.items()}
    state = LearnerState(**moved, meta_state=Adam().init(moved["phi"]))
    found.problem.module.to(device)
    found.problem.learned.to(device)
    return state, [value.to(device) for batch in (*found.train, found.meta) for value in batch]


def online(found: Case, estimator: Callable) -> Callable[[LearnerState, Inputs], tuple[LearnerState, Metrics]]:
    def step(state: LearnerState, inputs: Inputs) -> tuple[LearnerState, Metrics]:
        x, y, meta_x, meta_y, lr = inputs
        return online_step(
            found.problem,
            state,
            (x, y),
            (meta_x, meta_y),
            lr=lr,
            eta=1e-3,
            estimator=estimator,
            meta_optimizer=Adam(),
            clip_norm=1.0,
        )

    return step


def baseline(found: Case) -> Callable[[LearnerState, Inputs], tuple[LearnerState, Metrics]]:
    return lambda state, inputs: base_step(found.problem, state, (inputs[0], inputs[1]), inputs[4])


@pytest.mark.parametrize(
    ("learner", "optimizer"),
    [*((learner, "clipped adamw") for learner in LEARNERS), *(("linear", optimizer) for optimizer in OPTIMIZERS)],
)
def test_no_step_reads_a_value_or_leaves_its_device(learner: str, optimizer: str) -> None:
    """Algorithm 2 with each estimator, a baseline, the learned learning rate, and Algorithm 1 with two base steps."""
    found = case(learner, optimizer, dtype=torch.float32)
    state, inputs = scene(found, "meta")
    lr = torch.empty((), device="meta")
    alpha = {"alpha": torch.empty((), device="meta")}
    rate = replace(found, problem=replace(found.problem, learned=LearningRate(0.1).to("meta")))
    with OnMeta():
        for estimator in ESTIMATORS.values():
            online(found, estimator)(state, [*inputs, lr])
        baseline(found)(state, [*inputs, lr])
        of_lr = LearnerState(**{**vars(state), "phi": alpha, "meta_state": Adam().init(alpha)})
        online(rate, reverse)(of_lr, [*inputs, lr])
        x, y, meta_x, meta_y = inputs
        for name in ESTIMATORS if learner != "layer and group norm" else set(ESTIMATORS) - {"exact, low"}:
            init_step(
                found.problem,
                state,
                state.theta,
                state.buffers,
                [(x, y), (x, y)],
                (meta_x, meta_y),
                lr=lr,
                eta=1e-3,
                estimator=ESTIMATORS[name],
                meta_optimizer=Adam(),
                clip_norm=1.0,
            )


def test_reading_a_value_is_detected() -> None:
    found = case("linear", dtype=torch.float32)
    state, inputs = scene(found, "meta")
    step = online(found, lambda *parts, **of: reverse(*parts, **of) if parts[3][0][0].sum() > 0 else None)
    with pytest.raises((RuntimeError, NotImplementedError)), OnMeta():
        step(state, [*inputs, 0.1])

    def elsewhere(own: LearnerState) -> LearnerState:
        return replace(own, theta={**own.theta, "1.bias": torch.ones(4)})

    step = online(found, lambda problem, own, *parts, **of: reverse(problem, elsewhere(own), *parts, **of))
    with pytest.raises(AssertionError, match="takes a tensor of cpu"), OnMeta():
        step(state, [*inputs, 0.1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("estimator", ["exact, low", "exact, fast"])
@pytest.mark.parametrize("learner", ["lenet", "batch norm", "dropout", "shared weights"])
@pytest.mark.parametrize("optimizer", ["nesterov", "warm adam and decay"])
def test_state_in_place_is_bit_identical_to_functional_state(
    optimizer: str, learner: str, estimator: str, device: str
) -> None:
    """Two kinds of steps share the state; the learning rate changes in between; on a GPU each kind is a graph."""
    found = case(learner, optimizer, dtype=torch.float32)
    state, inputs = scene(found, device)
    steps = [online(found, ESTIMATORS[estimator]), baseline(found)]
    shared = clone_state(state)
    in_place = [Graphed(step, shared, capture=device == "cuda") for step in steps]
    measured: list[list[Metrics]] = [[], []]
    with arithmetic("float32", deterministic=True):
        torch.manual_seed(3)
        for index in range(6):
            lr = torch.full((), 0.1 / (index + 1), device=device)
            state, metrics = steps[index % 3 == 2](state, [*inputs, lr])
            measured[0].append(metrics)
        torch.manual_seed(3)
        for index in range(6):
            measured[1].append(in_place[index % 3 == 2]([*inputs, torch.full((), 0.1 / (index + 1), device=device)]))
    for part in ("theta", "buffers", "opt_state", "phi", "meta_state"):
        for name, value in getattr(state, part).items():
            assert torch.equal(getattr(shared, part)[name], value), (part, name)
    for one, other in zip(*measured, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    replays = learner == "dropout" and estimator == "exact, low"  # its second pass must draw the first one's mask
    assert in_place[0].captured == (device == "cuda" and not replays)


@pytest.mark.parametrize("device", DEVICES)
def test_numeric_input_is_a_number_or_a_scalar_on_the_device(device: str) -> None:
    found = case("lenet", dtype=torch.float32)
    state, inputs = scene(found, device)
    graphed = Graphed(online(found, ESTIMATORS["exact, fast"]), state, capture=device == "cuda")
    before = {name: value.clone() for name, value in state.theta.items()}
    graphed([*inputs, 0.0])
    assert all(torch.equal(value, before[name]) for name, value in state.theta.items())
    graphed([*inputs, 0.1])
    assert not any(torch.equal(value, before[name]) for name, value in state.theta.items())


@pytest.mark.parametrize("device", DEVICES)
def test_step_that_reads_a_value_runs_without_a_graph_and_does_not_affect_later_ones(
    device: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_graphed, "_told", set())
    found = case("lenet", dtype=torch.float32)
    state, inputs = scene(found, device)
    curious = online(found, lambda *parts, **of: reverse(*parts, **of) if parts[3][0][0].isfinite().all() else None)
    for step, captures in (
        (curious, False),
        (curious, False),
        (online(found, ESTIMATORS["exact, low"]), device == "cuda"),
    ):
        graphed = Graphed(step, clone_state(state), capture=device == "cuda")
        for _ in range(2):
            metrics = graphed([*inputs, 0.1])
        assert graphed.captured == captures
        assert metrics["meta_loss"].isfinite()
    assert len(caplog.records) == (device == "cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_graph_of_a_learner_replays_random_numbers_only_if_some_are_drawn(device: str, dtype: torch.dtype) -> None:
    """A pass with repeated draws can't be captured; one without draws can, also in low memory; numbers keep their digits."""
    for name in ("lenet", "dropout"):
        found = case(name, dtype=dtype)
        _, inputs = scene(found, device)
        learner = OnlineLossLearner(
            found.problem.module,
            Sgd(),
            found.problem.learned,
            F.cross_entropy,
            lr=0.1,
            memory="low",
            graph=device == "cuda",
        )
        batches = (inputs[0], inputs[1]), (inputs[2], inputs[3])
        learner.step(*batches)
        assert learner.step(*batches)["meta_loss"].dtype == dtype
        assert learner._graphed.captured == (device == "cuda" and name == "lenet")


@pytest.mark.parametrize(("name", "draws"), [("lenet", False), ("dropout", True)])
def test_random_draws_of_a_pass_are_detected(name: str, draws: bool) -> None:
    assert case(name).problem.draws_random is draws
