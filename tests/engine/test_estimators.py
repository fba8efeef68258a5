"""Contract suite of the meta-gradient estimators: base learners x optimizers x learned losses x S_inner."""

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch
from support.problems import LEARNERS, LOSSES, OPTIMIZERS, case, distance

from olfl_ray.engine import choose_estimator, exact, finite_difference, reverse
from olfl_ray.engine.estimators.choice import pick_memory
from olfl_ray.errors import SpecError

# In the package, these names are the functions after which the files are named.
exact_file, difference_file, reverse_file, unroll_file = (
    importlib.import_module(f"olfl_ray.engine.estimators.{name}")
    for name in ("exact", "finite_difference", "reverse", "unroll")
)
ESTIMATORS = {
    "reverse": reverse,
    "exact, low": partial(exact, memory="low"),
    "exact, fast": partial(exact, memory="fast"),
    "finite difference": finite_difference,
}
STEPS = (1, 3)
APART = sorted(set(ESTIMATORS) - {"reverse"})


def allowed(learner: str, optimizer: str, steps: int) -> dict[str, float]:
    """Estimator -> its maximum relative distance from `reverse`, where it is defined."""
    found = {"exact, low": 1e-10, "exact, fast": 1e-10, "finite difference": 1e-3}
    if optimizer == "cold adam":  # g / |g| bends too sharply at small g for a difference
        del found["finite difference"]
    if learner == "layer and group norm" and steps > 1:  # torch has no forward mode through their backward pass
        del found["exact, low"]
    return found


def check(learner: str, optimizer: str, loss: str, steps: int, *, only: str | None = None, lr: float = 0.05) -> None:
    problem, estimators = case(learner, optimizer, loss, steps), allowed(learner, optimizer, steps)
    if only is not None:
        estimators = {only: estimators[only]}
    wanted = problem.step(reverse, lr)
    assert all(torch.isfinite(value).all() for value in wanted.phi_grad.values())
    for name, tolerance in estimators.items():
        found = problem.step(ESTIMATORS[name], lr)
        assert distance(found.phi_grad, wanted.phi_grad) <= tolerance, name
        for part in ("theta", "buffers", "opt_state"):
            for key, value in getattr(wanted, part).items():
                torch.testing.assert_close(getattr(found, part)[key], value, rtol=1e-9, atol=1e-11)
        for part in ("base_loss", "task_loss", "meta_loss"):
            torch.testing.assert_close(getattr(found, part), getattr(wanted, part), rtol=1e-11, atol=0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_estimator_equals_reverse_over_reverse_on(learner: str, optimizer: str, steps: int) -> None:
    check(learner, optimizer, "mlp", steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"mlp"}))
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_estimator_equals_reverse_over_reverse_with(learner: str, loss: str, steps: int) -> None:
    check(learner, "momentum and decay", loss, steps)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"mlp"}))
def test_every_estimator_equals_reverse_over_reverse_with_clipped_adamw_and(loss: str) -> None:
    check("lenet", "clipped adamw", loss, 3)


def scaled(result: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 1.01 * value for name, value in result.items()}


def u_off(function: Callable) -> Callable:
    return lambda *parts: 1.01 * function(*parts)


def hessian_off(function: Callable) -> Callable:
    def planted(*parts):
        curved, along_phi = function(*parts)
        return scaled(curved), along_phi

    return planted


def phi_off(function: Callable) -> Callable:
    def planted(*parts):
        curved, along_phi = function(*parts)
        return curved, scaled(along_phi)

    return planted


def w_off(function: Callable) -> Callable:
    def planted(*parts, **settings):
        found = function(*parts, **settings)
        return replace(found, w=scaled(found.w))

    return planted


def adjoint_off(function: Callable) -> Callable:
    def planted(*parts, **settings):
        found = function(*parts, **settings)
        return replace(found, theta=scaled(found.theta))

    return planted


@pytest.mark.parametrize(
    ("where", "name", "plant", "estimator", "steps"),
    [
        (exact_file, "_forward_mode", u_off, "exact, low", 1),
        (exact_file, "_transposed_twice", u_off, "exact, fast", 1),
        (difference_file, "_outputs", u_off, "finite difference", 1),
        *((unroll_file, "through_update", w_off, name, 1) for name in APART),
        *((unroll_file, "through_update", adjoint_off, name, 3) for name in APART),
        (exact_file, "_forward_over_reverse", hessian_off, "exact, low", 3),
        (exact_file, "_reverse_twice", hessian_off, "exact, fast", 3),
        # for finite differences, one percent of the curvature's part is below their own error
        (exact_file, "_forward_over_reverse", phi_off, "exact, low", 3),
        (exact_file, "_reverse_twice", phi_off, "exact, fast", 3),
        (difference_file, "_gradients", phi_off, "finite difference", 3),
    ],
)
def test_error_of_one_percent_is_detected_in(
    where: ModuleType, name: str, plant: Callable, estimator: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, plant(getattr(where, name)))
    with pytest.raises(AssertionError, match=f"^{estimator}"):
        check("smooth mlp", "warm adam and decay", "softplus", steps, only=estimator, lr=0.5)


def test_error_of_one_percent_is_detected_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reverse is the reference: every other estimator then differs from it."""
    result = reverse_file.StepResult
    monkeypatch.setattr(
        reverse_file, "StepResult", lambda **parts: result(**{**parts, "phi_grad": scaled(parts["phi_grad"])})
    )
    for estimator in APART:
        with pytest.raises(AssertionError, match=f"^{estimator}"):
            check("smooth mlp", "warm adam and decay", "softplus", 1, only=estimator)


@pytest.mark.parametrize("steps", STEPS)
def test_every_estimator_equals_reverse_over_reverse_at_theta_zero(steps: int) -> None:
    problem = case("linear", steps=steps)
    problem = replace(problem, theta={name: torch.zeros_like(value) for name, value in problem.theta.items()})
    wanted = problem.step(reverse).phi_grad
    for name, tolerance in allowed("linear", "sgd", steps).items():
        assert distance(problem.step(ESTIMATORS[name]).phi_grad, wanted) <= tolerance, name


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("optimizer", ["nesterov", "warm adam and decay"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_meta_gradient_equals_central_differences_of_the_complete_step(
    estimator: str, optimizer: str, steps: int
) -> None:
    problem = case("smooth mlp", optimizer, "softplus", steps)
    found = problem.step(ESTIMATORS[estimator], 0.5).phi_grad
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for name, value in problem.phi.items()
        }
        losses = [
            problem.step(
                reverse, 0.5, phi={name: value + h * direction[name] for name, value in problem.phi.items()}
            ).meta_loss
            for h in (1e-4, -1e-4)
        ]
        slope = ((losses[0] - losses[1]) / 2e-4).item()
        along = sum((found[name] * direction[name]).sum().item() for name in found)
        assert along == pytest.approx(slope, rel=1e-4 if estimator == "finite difference" else 1e-5)


@pytest.mark.parametrize("learner", sorted(set(LEARNERS) - {"dropout"}))  # its masks depend on the dtype
def test_exact_estimators_agree_with_float64_in_float32(learner: str) -> None:
    wanted = case(learner, "nesterov").step(reverse).phi_grad
    single = case(learner, "nesterov", dtype=torch.float32)
    double = case(learner, "nesterov")
    for name in ("theta", "buffers", "state", "phi"):
        for key, value in getattr(single, name).items():
            value.copy_(getattr(double, name)[key])
    batches = [(x.float(), y) for x, y in double.train]
    for name in ("reverse", "exact, low", "exact, fast"):
        torch.manual_seed(11)
        found = ESTIMATORS[name](
            single.problem, single.learner, 0.05, batches, (double.meta[0].float(), double.meta[1])
        )
        assert distance({key: value.double() for key, value in found.phi_grad.items()}, wanted) <= 1e-4, name


@pytest.mark.parametrize("memory", ["low", "fast"])
def test_same_seed_is_bit_identical(memory: str) -> None:
    problem = case("dropout", "warm adam and decay", dtype=torch.float32)
    one, other = (problem.step(partial(exact, memory=memory)) for _ in range(2))
    for name, value in one.phi_grad.items():
        assert torch.equal(value, other.phi_grad[name])


def test_inputs_and_modules_own_tensors_are_unchanged() -> None:
    problem = case("batch norm", "warm adam and decay", steps=3)
    given = [problem.theta, problem.buffers, problem.state, problem.phi, problem.problem.module.state_dict()]
    before = [{name: value.clone() for name, value in tensors.items()} for tensors in given]
    for estimator in ESTIMATORS.values():
        problem.step(estimator)
        for tensors, kept in zip(given, before, strict=True):
            assert all(torch.equal(value, kept[name]) for name, value in tensors.items())


def test_memory_of_the_backward_recursion_does_not_grow_with_activations() -> None:
    """The number of live tensors of a batch's size: the same for six steps as for two."""

    def largest(steps: int) -> int:
        problem = case("lenet", "momentum and decay", steps=steps)
        alive, most = 0, 0

        class Saved:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal alive, most
                self.tensor = tensor
                alive += tensor.numel()
                most = max(most, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            problem.step(exact)
        return most

    assert largest(6) == largest(2)


def test_auto_warns_once_about_an_operator_without_forward_mode_and_uses_fast(caplog: pytest.LogCaptureFixture) -> None:
    problem = case("lstm", dtype=torch.float32)
    with caplog.at_level(logging.WARNING):
        found = [choose_estimator("auto", "low", 1, problem.problem, problem.train[0]) for _ in range(2)]
    assert [estimator.way for estimator in found] == ["fast"] * 2
    assert len(caplog.records) == 1
    assert "auto uses exact with memory fast for this learner" in caplog.text
    with pytest.raises(SpecError, match=r"meta.estimator: exact is not available .*reverse"):
        choose_estimator("exact", "low", 1, problem.problem, problem.train[0])


def test_auto_is_exact_and_chooses_memory_by_the_activations() -> None:
    problem = case("lenet")
    found = choose_estimator("auto", "auto", 3, problem.problem, problem.train[0])
    assert found.way == "fast"
    x, _ = problem.train[0]
    assert pick_memory(problem.problem, x[:2], 2) == "fast"
    assert pick_memory(problem.problem, x[:2], 2**40) == "low"
