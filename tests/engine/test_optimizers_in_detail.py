"""Base optimizers step by step: a learning rate as a number or a tensor, clipped or not, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.engine import Adam, Sgd
from olfl_ray.engine.optimizers import Optimizer, clip_scale, global_norm, with_gradient
from olfl_ray.errors import SpecError

Torchs = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
PAIRS: dict[str, tuple[Optimizer, Torchs]] = {
    "sgd": (Sgd(), lambda p: torch.optim.SGD(p, 0.1)),
    "decay": (Sgd(weight_decay=0.2), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.2)),
    "momentum": (Sgd(momentum=0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
    "nesterov": (Sgd(momentum=0.8, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True)),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, 0.1)),
    "adam, all set": (
        Adam(beta1=0.7, beta2=0.9, eps=0.3, weight_decay=0.2),
        lambda p: torch.optim.Adam(p, 0.1, (0.7, 0.9), 0.3, 0.2),
    ),
    "adamw": (Adam(weight_decay=0.2, decoupled=True), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2)),
}
SHAPES = {"w": (3, 2), "b": (4,)}


def drawn(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in SHAPES.items()
    }


def stepped(own: Optimizer, lr: float | Tensor, scale: float = 1.0, steps: int = 4) -> dict[str, Tensor]:
    theta, state = drawn(0), own.init(drawn(0))
    for step in range(steps):
        theta, state = own.update(theta, drawn(step + 1, scale), state, lr)
    return theta


def of_torch(theirs: Torchs, clip: float | None = None, scale: float = 1.0, steps: int = 4) -> dict[str, Tensor]:
    theta = {name: nn.Parameter(value) for name, value in drawn(0).items()}
    other = theirs(theta.values())
    for step in range(steps):
        for name, value in drawn(step + 1, scale).items():
            theta[name].grad = value
        if clip is not None:
            nn.utils.clip_grad_norm_(theta.values(), clip)
        other.step()
    return {name: value.detach() for name, value in theta.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
def test_learning_rate_as_number_or_tensor_gives_torchs_own_step(name: str) -> None:
    own, theirs = PAIRS[name]
    wanted = of_torch(theirs)
    same(stepped(own, 0.1), wanted)
    same(stepped(own, torch.tensor(0.1, dtype=torch.float64)), wanted)


@pytest.mark.parametrize("name", PAIRS)
def test_parameter_without_a_gradient_in_a_step_is_left_alone_as_in_torch(name: str) -> None:
    own, theirs = PAIRS[name]
    theta, state = drawn(0), own.init(drawn(0))
    wanted = {key: nn.Parameter(value) for key, value in drawn(0).items()}
    other = theirs(wanted.values())
    for step, reached in enumerate((["w", "b"], ["b"], ["w"], ["w", "b"], ["b"])):
        grads = {key: value for key, value in drawn(step + 1).items() if key in reached}
        for key, parameter in wanted.items():
            parameter.grad = grads.get(key)
        other.step()
        theta, state = own.update(theta, dict(grads), state, 0.1)
    same(theta, {key: value.detach() for key, value in wanted.items()})


def test_number_of_steps_may_be_one_for_all_parameters_as_in_earlier_versions() -> None:
    own, theta = Adam(), drawn(0)
    _, state = own.update(theta, drawn(1), own.init(theta), 0.1)
    earlier = {**state, "t": torch.tensor(1.0, dtype=torch.float64)}
    for grads in (drawn(2), {"b": drawn(2)["b"]}):
        found, wanted = (own.update(theta, dict(grads), before, 0.1) for before in (earlier, state))
        same(found[0], wanted[0])
        same(found[1], wanted[1])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("own", [Sgd(clip_norm=1.0), Adam(clip_norm=1.0, eps=0.1)], ids=["sgd", "adam"])
def test_clipping_matches_torchs_and_leaves_a_short_gradient(own: Optimizer, scale: float) -> None:
    def theirs(p: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(p, 0.1) if isinstance(own, Sgd) else torch.optim.Adam(p, 0.1, eps=0.1)

    same(stepped(own, 0.1, scale), of_torch(theirs, 1.0, scale))


def test_norm_of_a_gradient_is_over_all_entries_together() -> None:
    grads = drawn(1)
    flat = torch.cat([value.flatten() for value in grads.values()])
    assert global_norm(grads).item() == pytest.approx(flat.norm().item())
    assert clip_scale(torch.tensor(0.5), 1.0).item() == 1.0
    assert clip_scale(torch.tensor(4.0), 1.0).item() == pytest.approx(0.25, rel=1e-5)
    assert clip_scale(torch.tensor(0.0), 1.0).item() == 1.0


@pytest.mark.parametrize("name", ["sgd", "decay", "momentum", "nesterov"])
def test_the_gradient_factor_is_the_derivative_of_the_step_in_the_gradient(name: str) -> None:
    own, _ = PAIRS[name]
    factor = own.gradient_factor(0.1)
    grads = {key: value.requires_grad_() for key, value in drawn(1).items()}
    moved, _ = own.update(drawn(0), dict(grads), own.init(drawn(0)), 0.1)
    found = torch.autograd.grad(sum(value.sum() for value in moved.values()), list(grads.values()))
    for value in found:
        torch.testing.assert_close(value, torch.full_like(value, float(factor)))  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [Sgd(clip_norm=1.0), Adam(), Adam(clip_norm=1.0)])
def test_there_is_no_factor_if_the_step_is_not_linear_in_the_gradient(own: Optimizer) -> None:
    assert own.gradient_factor(0.1) is None


@pytest.mark.parametrize(
    "own", [Sgd(momentum=0.8, weight_decay=0.2, clip_norm=1.0), Adam(clip_norm=1.0, weight_decay=0.2, decoupled=True)]
)
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_derivatives_of_a_step_equal_finite_differences(own: Optimizer, scale: float) -> None:
    names = list(SHAPES)
    state = own.init(drawn(0))
    for step in (5, 6):
        _, state = own.update(drawn(0), drawn(step), state, 0.1)

    def step_of(lr: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:
        theta, after = own.update(drawn(0), dict(zip(names, grads, strict=True)), state, lr)
        return (*theta.values(), *(value for key, value in after.items() if key != "t"))

    grads = [value.requires_grad_() for value in drawn(1, scale).values()]
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(step_of, (lr, *grads), eps=1e-7 * scale, atol=1e-4)


def test_a_gradient_of_zero_has_a_finite_derivative_through_the_norm() -> None:
    grads = {name: torch.zeros_like(value).requires_grad_() for name, value in drawn(0).items()}
    own = Sgd(clip_norm=1.0)
    moved, _ = own.update(drawn(0), dict(grads), {}, 0.1)
    for found in torch.autograd.grad(sum(value.sum() for value in moved.values()), list(grads.values())):
        torch.testing.assert_close(found, torch.full_like(found, -0.1))


def test_gradients_are_consumed_and_state_is_contiguous() -> None:
    for own in (Sgd(momentum=0.9), Adam()):
        theta = drawn(0)
        grads = {"w": torch.randn(2, 3, dtype=torch.float64).t(), "b": theta["b"].clone()}
        assert not grads["w"].is_contiguous()
        _, state = own.update(theta, grads, own.init(theta), 0.1)
        assert grads == {}
        assert all(value.is_contiguous() for value in state.values())


def test_state_starts_at_zero_and_only_if_needed() -> None:
    theta = drawn(0)
    assert Sgd().init(theta) == {}
    assert list(Sgd(momentum=0.9).init(theta)) == ["w", "b"]
    state = Adam().init(theta)
    assert list(state) == ["m.w", "m.b", "v.w", "v.b", "t"]
    assert (state["t"].tolist(), state["t"].dtype) == ([0.0, 0.0], torch.float64), "number of steps per parameter"
    assert all(not value.any() for value in state.values())
    assert Adam().update(theta, drawn(1), state, 0.1)[1]["t"].tolist() == [1.0, 1.0]


def test_gradients_by_name_are_those_that_exist() -> None:
    grads = drawn(1)
    assert with_gradient(["w", "b", "c"], [grads["w"], None, grads["b"]]) == {"w": grads["w"], "c": grads["b"]}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Adam, "beta1", 1.0),
        (Adam, "beta2", 1.0),
        (Adam, "beta2", -0.1),
        (Adam, "eps", -1e-8),
        (Adam, "weight_decay", -0.1),
        (Adam, "clip_norm", 0.0),
        (Sgd, "clip_norm", 0.0),
        (Sgd, "clip_norm", float("nan")),
        (Sgd, "momentum", -0.1),
        (Sgd, "weight_decay", float("inf")),
        (Sgd, "nesterov", True),
    ],
)
def test_setting_out_of_range_is_refused_by_name(kind: type[Optimizer], field: str, value: float) -> None:
    with pytest.raises(SpecError) as refused:
        kind(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["beta1", "beta2", "eps", "weight_decay"])
def test_zero_is_in_the_range_of_adams_settings(field: str) -> None:
    assert getattr(Adam(**{field: 0.0}), field) == 0.0
