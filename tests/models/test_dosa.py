"""DOSA's network: its neurons against a written-out recurrence and snnTorch, its outputs by hand, its meta-gradients exact."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import snntorch
import torch
from support.problems import Case, distance
from torch import Tensor

from olfl_ray import models
from olfl_ray.engine import Problem, Sgd, exact, reverse
from olfl_ray.errors import SpecError
from olfl_ray.losses.margins import MarginLoss
from olfl_ray.methods.online_margin import LearnedMargins
from olfl_ray.models.dosa import Dosa, ParametricLif, spike
from olfl_ray.tasks import task_of


def current(steps: int = 12, neurons: int = 7) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return 3 * torch.randn(steps, 5, neurons, generator=draw, dtype=torch.float64)


def layer(tau: float = 2.0) -> ParametricLif:
    return ParametricLif(tau).double()


@pytest.mark.parametrize("tau", [1.3, 2.0, 5.0])
def test_spikes_are_those_of_the_recurrence(tau: float) -> None:
    given = layer(tau)(current()).tolist()
    for example in range(5):
        for neuron in range(7):
            v = 0.0
            for step, value in enumerate(current()[:, example, neuron].tolist()):
                v = v + (value - v) / tau
                fired = v >= 1.0
                assert given[step][example][neuron] == float(fired)
                v = 0.0 if fired else v
    assert 0 < sum(torch.tensor(given).flatten().tolist()) < current().numel()


@pytest.mark.parametrize("tau", [1.3, 2.0, 5.0])
def test_spikes_and_gradients_are_those_of_snntorch(tau: float) -> None:
    """Its neuron v <- beta v + I has our decay with beta = 1 - sigmoid(w), and our input if I is scaled by sigmoid(w)."""
    neurons, given_TBN = layer(tau), current().requires_grad_()
    weights_TBN = torch.randn(12, 5, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    spikes_TBN = neurons(given_TBN)
    (spikes_TBN * weights_TBN).sum().backward()

    theirs_TBN, w = current().requires_grad_(), neurons.w.detach().clone().requires_grad_()
    leaky = snntorch.Leaky(
        beta=0.5, spike_grad=snntorch.surrogate.atan(alpha=2.0), reset_mechanism="zero", reset_delay=True
    )
    rate, memory, found = torch.sigmoid(w), torch.zeros(5, 7, dtype=torch.float64), []
    leaky.beta = 1 - rate
    for current_BN in theirs_TBN.unbind():
        fired_BN, memory = leaky(rate * current_BN, memory)
        found.append(fired_BN)
    wanted_TBN = torch.stack(found).double()
    (wanted_TBN * weights_TBN).sum().backward()

    assert torch.equal(spikes_TBN, wanted_TBN)
    assert given_TBN.grad is not None
    assert theirs_TBN.grad is not None
    torch.testing.assert_close(given_TBN.grad, theirs_TBN.grad, rtol=1e-6, atol=1e-9)  # their spikes are float32
    torch.testing.assert_close(neurons.w.grad, w.grad, rtol=1e-6, atol=1e-9)


def test_spike_is_a_step_with_the_derivatives_of_the_surrogate() -> None:
    u = torch.linspace(-3, 3, 25, dtype=torch.float64).requires_grad_()
    value = spike(u)
    assert torch.equal(value, (u >= 0).double())
    (slope,) = torch.autograd.grad(value.sum(), u, create_graph=True)
    torch.testing.assert_close(slope, 1 / (1 + (math.pi * u) ** 2))
    (second,) = torch.autograd.grad(slope.sum(), u)
    torch.testing.assert_close(second, -2 * math.pi**2 * u / (1 + (math.pi * u) ** 2) ** 2)


def test_outputs_are_those_of_the_simulation_by_hand() -> None:
    torch.manual_seed(0)
    module = Dosa(4, 3, [6, 5], steps=7, tau=2.0).double()
    x = 2 * torch.randn(8, 4, dtype=torch.float64)
    first, second = module.layers
    for example, wanted_L in zip(x, module(x), strict=True):
        v, w = torch.zeros(6).double(), torch.zeros(5).double()
        plus, minus = torch.zeros(3).double(), torch.zeros(3).double()
        means = torch.zeros(2, 3).double()
        for _ in range(7):
            v = v + 0.5 * (first(example) - v)
            fired = (v >= 1).double()
            v = torch.where(v >= 1, 0.0, v)
            w = w + 0.5 * (second(fired) - w)
            also = (w >= 1).double()
            w = torch.where(w >= 1, 0.0, w)
            plus, minus = plus + module.positive(also), minus + module.negative(also)
            means = means + torch.stack([plus.tanh(), minus.tanh()]) / 7
        torch.testing.assert_close(wanted_L, means[0] - means[1])


def test_every_layer_spikes_at_the_start() -> None:
    module: Any = models.build("dosa", {"hidden": [64, 64, 64]}, input_shape=(103,), outputs=14, seed=0)
    rates: list[float] = []
    for neurons in module.neurons:
        neurons.register_forward_hook(lambda _module, _inputs, spikes: rates.append(spikes.mean().item()))
    outputs_BL = module(torch.randn(64, 103, generator=torch.Generator().manual_seed(0)))
    assert all(0.05 < rate < 0.5 for rate in rates), rates
    assert outputs_BL.std(0).min() > 0.1


@pytest.mark.parametrize("importance", ["attached", "detached"])
def test_exact_meta_gradient_of_margins_equals_reverse_over_reverse(importance: Any) -> None:
    torch.manual_seed(0)
    task, rows = task_of("classification"), 6
    module = models.build("dosa", {"hidden": [8, 6], "steps": 4}, input_shape=(5,), outputs=3, seed=1).double().train()
    learned = LearnedMargins(MarginLoss(task, 3, importance=importance)).double()
    plain = task.losses["cross_entropy"]
    problem = Problem(
        module=module,
        learned=learned,
        task_loss=plain,
        base_loss=plain,
        optimizer=Sgd(momentum=0.9),
        draws_random=False,
    )
    train, meta = ((2 * torch.randn(rows, 5, dtype=torch.float64), torch.arange(rows) % 3) for _ in range(2))
    theta = problem.theta()
    case = Case(
        problem=problem,
        theta=theta,
        buffers=problem.buffers(),
        state=problem.optimizer.init(theta),
        phi=problem.phi(),
        train=[train],
        meta=meta,
    )
    wanted = case.step(reverse)
    assert wanted.phi_grad["margins.rho"].abs().min() > 0
    for memory in ("low", "fast"):
        found = case.step(partial(exact, memory=memory))
        assert distance(found.phi_grad, wanted.phi_grad) <= 1e-9, memory
        assert distance(found.theta, wanted.theta) <= 1e-12, memory


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"hidden": []}, "hidden"),
        ({"hidden": [0]}, "hidden"),
        ({"hidden": 8}, "hidden"),
        ({"steps": 0}, "steps"),
        ({"tau": 1.0}, "tau"),
        ({"tau": "2"}, "tau"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        models.build("dosa", options, input_shape=(4,), outputs=2, seed=0)
    assert caught.value.field == f"task.model.{field}"
