"""Each hook of a learnable: every estimator equals reverse over reverse, which equals central differences of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch
from support.learnables import LEARNABLES, PerClass
from support.problems import OUTPUTS, Case, case, distance

import olfl_ray.engine.estimators.unroll as unroll_file
from olfl_ray import OnlineLossLearner
from olfl_ray.engine import Hooks, Sgd, base_step, choose_estimator, exact, finite_difference, meta_gradient, reverse
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params

WAYS = {"low": partial(exact, memory="low"), "fast": partial(exact, memory="fast"), "fd": finite_difference}
ALLOWED = {"low": 1e-10, "fast": 1e-10, "fd": 2e-4}


def with_learnable(hook: str, learner: str, optimizer: str, steps: int) -> Case:
    found = case(learner, optimizer, steps=steps)
    torch.manual_seed(2)
    learnable = LEARNABLES[hook](found.theta, OUTPUTS).double()
    phi = {name: value.detach().clone() for name, value in learnable.named_parameters()}
    return replace(found, problem=replace(found.problem, learned=learnable), phi=phi)


def off(found: Case, way: Callable, fresh: bool) -> float:
    wanted = found.step(reverse, 0.3, fresh=fresh)
    given = found.step(way, 0.3, fresh=fresh)
    for part in ("theta", "buffers", "opt_state"):
        torch.testing.assert_close(getattr(given, part), getattr(wanted, part), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(given.base_loss, wanted.base_loss)
    if found.problem.hooks == Hooks(start=True) and not fresh:  # phi entered before this step only
        assert not any(value.any() for value in (*wanted.phi_grad.values(), *given.phi_grad.values()))
        return 0.0
    return distance(given.phi_grad, wanted.phi_grad)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("learner", "optimizer"),
    [
        ("smooth mlp", "sgd"),
        ("smooth mlp", "warm adam and decay"),
        ("batch norm", "momentum and decay"),
        ("dropout", "clipped adamw"),
        ("frozen parameters", "clipped"),
    ],
)
@pytest.mark.parametrize("hook", LEARNABLES)
def test_every_estimator_equals_reverse_over_reverse(hook: str, learner: str, optimizer: str, steps: int) -> None:
    found = with_learnable(hook, learner, optimizer, steps)
    for fresh in {False, found.problem.hooks.start}:
        for name, way in WAYS.items():
            assert off(found, way, fresh) <= ALLOWED[name], (name, fresh)


class FirstMoved(Learnable):
    """Training starts at the base learner's own weights, but for the first parameter."""

    def __init__(self, theta: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.offset = torch.nn.Parameter(0.1 * torch.randn_like(next(iter(theta.values()))))

    def start(self, theta: Params) -> Params:
        first, *others = theta
        return {first: theta[first] + self.offset, **{name: theta[name] for name in others}}


@pytest.mark.parametrize("steps", [1, 2])
def test_start_may_leave_parameters_as_they_are(steps: int) -> None:
    found = case("smooth mlp", "sgd", steps=steps)
    learnable = FirstMoved(found.theta).double()
    phi = {"offset": learnable.offset.detach().clone()}
    found = replace(found, problem=replace(found.problem, learned=learnable), phi=phi)
    for name, way in WAYS.items():
        assert off(found, way, True) <= ALLOWED[name], name


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("hook", LEARNABLES)
def test_reverse_equals_central_differences(hook: str, steps: int) -> None:
    found = with_learnable(hook, "smooth mlp", "warm adam and decay", steps)
    gradient = found.step(reverse, 0.3, fresh=True).phi_grad
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in found.phi.items()
        }
        losses = [
            found.step(
                reverse, 0.3, fresh=True, phi={name: value + h * direction[name] for name, value in found.phi.items()}
            ).meta_loss
            for h in (1e-5, -1e-5)
        ]
        along = sum((gradient[name] * direction[name]).sum().item() for name in gradient)
        assert along == pytest.approx(((losses[0] - losses[1]) / 2e-5).item(), rel=1e-5)


@pytest.mark.parametrize("hook", LEARNABLES)
def test_base_step_equals_the_estimators_step(hook: str) -> None:
    found = with_learnable(hook, "batch norm", "momentum and decay", 1)
    wanted = found.step(reverse, 0.3)
    given, measured = base_step(found.problem, found.learner, found.train[0], 0.3)
    for part in ("theta", "buffers", "opt_state"):
        torch.testing.assert_close(getattr(given, part), getattr(wanted, part), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measured["base_loss"], wanted.base_loss)


def scaled(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 1.01 * value for name, value in found.items()}


@pytest.mark.parametrize(
    ("name", "hook", "part"),
    [("through_penalty", "penalty", None), ("_through_start", "start", None), ("through_update", "update", "phi")],
)
def test_error_of_one_percent_is_detected(
    name: str, hook: str, part: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: ModuleType = unroll_file
    plain = getattr(where, name)

    def planted(*parts: object, **settings: object) -> object:
        found = plain(*parts, **settings)
        return scaled(found) if part is None else replace(found, **{part: scaled(getattr(found, part))})

    monkeypatch.setattr(where, name, planted)
    found = with_learnable(hook, "smooth mlp", "sgd", 1)
    for way in WAYS.values():
        assert off(found, way, found.problem.hooks.start) > 1e-3


@pytest.mark.parametrize("hook", LEARNABLES)
def test_auto_agrees_with_a_plain_loop_and_takes_the_step(hook: str) -> None:
    found = with_learnable(hook, "smooth mlp", "momentum and decay", 2)
    chosen = choose_estimator("auto", "auto", 2, found.problem, found.train[0])
    for fresh in {False, found.problem.hooks.start}:
        assert off(found, chosen, fresh) <= 1e-10
    assert (chosen is reverse) == (hook == "update")  # whose gradient g does not depend on phi


def test_learnable_in_a_users_own_loop() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 4)
    learnable = LEARNABLES["all hooks"](dict(module.named_parameters()), 4)
    batch = torch.randn(8, 3), torch.arange(8) % 4
    parts = module, Sgd(), learnable, torch.nn.functional.cross_entropy, batch, batch
    one, other = (meta_gradient(*parts, lr=0.1, fresh=True, estimator=name).phi_grad for name in ("auto", "reverse"))
    assert distance(one, other) < 1e-5
    before = [value.clone() for value in learnable.parameters()]
    learner = OnlineLossLearner(module, Sgd(), learnable, torch.nn.functional.cross_entropy, lr=0.1, eta=0.1)
    assert learner.step(batch, batch)["meta_loss"].isfinite()
    moved = [not torch.equal(value, old) for value, old in zip(learnable.parameters(), before, strict=True)]
    assert any(moved)


def test_start_with_other_names_or_shapes_is_refused() -> None:
    class Wrong(PerClass):
        def start(self, theta):  # type: ignore[no-untyped-def]
            return {name: value[:1] for name, value in theta.items()}

    found = with_learnable("loss", "linear", "sgd", 1)
    wrong = replace(found, problem=replace(found.problem, learned=Wrong(found.theta, OUTPUTS).double()))
    with pytest.raises(SpecError, match=r"^learnable: start .*shapes"):
        wrong.step(reverse, fresh=True)


def test_learnable_without_hooks_is_plain_training() -> None:
    found = with_learnable("loss", "linear", "sgd", 1)
    idle = Learnable()
    idle.register_parameter("idle", torch.nn.Parameter(torch.ones(2, dtype=torch.float64)))
    plain = replace(found, problem=replace(found.problem, learned=idle), phi={"idle": torch.ones(2).double()})
    result = plain.step(reverse)
    assert torch.equal(result.phi_grad["idle"], torch.zeros(2).double())
    given, _ = base_step(replace(found.problem, learned=Learnable()), found.learner, found.train[0], 0.05)
    assert all(torch.equal(value, result.theta[name]) for name, value in given.theta.items())


class PartlyFixed(Learnable):
    """A learned penalty of the first parameter, and one of the last that neither phi nor theta changes."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(0.3))

    def penalty(self, theta: Params) -> torch.Tensor:
        first, *_, last = theta.values()
        return self.strength * first.square().sum() + 0.1 * last.sum()


def test_part_of_a_penaltys_gradient_may_be_constant() -> None:
    found = case("smooth mlp", "sgd", steps=2)
    learnable = PartlyFixed().double()
    phi = {"strength": learnable.strength.detach().clone()}
    found = replace(found, problem=replace(found.problem, learned=learnable), phi=phi)
    for name, way in WAYS.items():
        assert off(found, way, True) <= ALLOWED[name], name
