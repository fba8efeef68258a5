"""The learned loss `expression`: its values, derivatives and weights, and the losses that some formulas are."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from support.formulas import drawn
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.formula import OPERATORS, Formula
from olfl_ray.losses import LearnedLoss, build_loss, loss_from_bytes, loss_settings
from olfl_ray.losses.learned.expression import COMPUTE
from olfl_ray.spec import LearnedLossSpec, TrialConfig
from olfl_ray.trial import TrialEnvironment, check, run


def built(formula: str, kind: str = "regression", *, seed: int = 0, **settings: Any) -> LearnedLoss:
    spec = LearnedLossSpec.model_validate({"name": "expression", "formula": formula, **settings})
    return build_loss(spec, kind, seed=seed)


def direct(tree: Formula, y: float, f: float) -> float:
    """A second implementation, in Python's own numbers."""
    terminals = {"y": y, "f": f, "1": 1.0, "-1": -1.0}
    if tree.name in terminals:
        return terminals[tree.name]
    a, *more = (direct(operand, y, f) for operand in tree.operands)
    if not more:
        return {
            "sign": lambda: float((a > 0) - (a < 0)),
            "square": lambda: a**2,
            "abs": lambda: abs(a),
            "log": lambda: math.log(max(abs(a), 1e-7)),
            "sqrt": lambda: math.sqrt(max(abs(a), 1e-7)),
            "tanh": lambda: math.tanh(a),
        }[tree.name]()
    (b,) = more
    return {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "aq": lambda: a / math.sqrt(1 + b**2),
        "min": lambda: min(a, b),
        "max": lambda: max(a, b),
    }[tree.name]()


def test_a_thousand_random_trees_equal_their_direct_evaluation() -> None:
    random, compared = Random(1), 0
    y, f = (torch.tensor(values, dtype=torch.float64) for values in ([0.3, -1.7, 1.0], [0.6, 0.25, -2.0]))
    while compared < 1000:
        tree = drawn(random, 5)
        if not (tree.has("y") and tree.has("f")):
            continue
        loss = built(tree.prefix, weights="fixed").double()
        try:
            wanted = [direct(tree, *pair) for pair in zip(y.tolist(), f.tolist(), strict=True)]
        except OverflowError:
            continue
        torch.testing.assert_close(loss.network(f, y), torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        compared += 1


def test_the_order_of_the_operands_counts() -> None:
    y, f = torch.tensor(3.0), torch.tensor(0.5)
    for text, wanted in (("y - f", 2.5), ("f - y", -2.5), ("y / f", 3 / 1.25**0.5), ("f / y", 0.5 / 10**0.5)):
        assert built(text, weights="fixed").network(f, y).item() == pytest.approx(wanted, rel=1e-6), text


def test_numbers_are_exact_and_have_weights_as_others() -> None:
    y, f = torch.tensor(3.0), torch.tensor(0.5)
    assert (
        built("0.1 * y + f * (-2.5)", weights="fixed").double().network(f.double(), y.double()).item() == 0.1 * 3 - 1.25
    )
    (weights,) = built("0.1 * y + f * (-2.5)").parameters()
    assert weights.shape == (6,)


def test_each_edge_has_a_weight_that_starts_near_1() -> None:
    loss = built("square(y - f) + y * log(f)")
    (weights,) = loss.parameters()
    assert weights.shape == (8,)
    many = torch.cat([next(built("y - f", seed=seed).parameters()).detach() for seed in range(500)])
    assert many.mean().item() == pytest.approx(1, abs=1e-4)
    assert many.std().item() == pytest.approx(1e-3, rel=0.1)


def test_a_weight_multiplies_its_operand() -> None:
    loss = built("square(y - f)")
    (weights,) = loss.parameters()
    with torch.no_grad():
        weights.copy_(torch.tensor([2.0, 3.0, 5.0]))
    assert loss.network(torch.tensor(1.0), torch.tensor(2.0)).item() == (5 * (2 * 2 - 3 * 1)) ** 2


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_protected_operators_have_finite_derivatives(name: str) -> None:
    line = [0.0, 1e-8, 1e-7, 1e-4, 0.5, 1.0, 3.0, 1e3]
    points = torch.tensor([*line, *(-value for value in line)])
    for dtype in (torch.float32, torch.float64):
        grid = torch.cartesian_prod(points, points).to(dtype)
        operands = [column.clone().requires_grad_() for column in grid.unbind(1)[: OPERATORS[name].arity]]
        value = COMPUTE[name](*operands)
        assert torch.isfinite(value).all()
        for slope in torch.autograd.grad(value.sum(), operands, create_graph=True):
            assert torch.isfinite(slope).all()
            if slope.requires_grad:
                for bend in torch.autograd.grad(slope.sum(), operands, retain_graph=True, materialize_grads=True):
                    assert torch.isfinite(bend).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_cross_entropys_formula_is_the_cross_entropy_up_to_the_clamp(reduction: str) -> None:
    loss = built("-y * log(f)", "classification", weights="fixed", reduction=reduction).double()
    logits_BC = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets_B = torch.arange(8) % 4
    found, wanted = (
        loss(logits_BC, targets_B),
        F.cross_entropy(logits_BC, targets_B) / (4 if reduction == "mean" else 1),
    )
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits_BC)[0] for value in (found, wanted)))
    far = torch.tensor([[40.0, 0.0]])
    assert built("-y * log(f)", "classification", weights="fixed", reduction="sum")(far, torch.tensor([1])).item() == (
        pytest.approx(-math.log(1e-7), rel=1e-5)
    )


def trained(tmp_path: Path, method: str, **changes: Any) -> Any:
    config = TrialConfig.model_validate(
        {
            "task": {"dataset": "diabetes", "model": {"name": "mlp", "hidden": [8]}, "batch_size": 16},
            "learner": {"method": method, "steps": 10, "optimizer": {"name": "sgd", "lr": 0.05}},
            "eval": {"every": 5},
            "seeds": [1],
            **changes,
        }
    )
    place = TrialEnvironment(cache=tmp_path)
    check(config, place)
    return list(run(config, place))[-1].state.replicates[0].learner


def test_the_formula_of_the_squared_error_trains_exactly_as_the_squared_error(tmp_path: Path) -> None:
    formula = {"name": "expression", "formula": "square(sub(y, f))", "weights": "fixed"}
    one = trained(tmp_path, "offline", loss=formula, meta={"init_steps": 0})
    other = trained(tmp_path, "baseline")
    for name, value in one.theta.items():
        assert torch.equal(value, other.theta[name]), name


@pytest.mark.parametrize("method", ["offline", "online"])
def test_weights_are_learned_by_every_method_that_learns_a_loss(method: str, tmp_path: Path) -> None:
    loss = {"name": "expression", "formula": "square(y - f) + tanh(y * f)"}
    meta = {"init_steps": 3, "eta_init": 1e-2, "eta_online": 1e-2}
    found = trained(tmp_path, method, loss=loss, meta=meta)
    weights: Tensor = found.phi["network.weights"]
    assert torch.isfinite(weights).all()
    assert (weights - 1).abs().max() > 1e-2
    before = trained(tmp_path, "offline", loss=loss, meta={"init_steps": 3, "eta_init": 1e-2}).phi["network.weights"]
    assert torch.equal(weights, before) == (method == "offline")


@pytest.mark.parametrize(("method", "meta"), [("offline", {}), ("online", {}), ("online", {"init_steps": 0})])
def test_fixed_weights_are_refused_where_a_method_would_learn_them(method: str, meta: Any, tmp_path: Path) -> None:
    loss = {"name": "expression", "formula": "square(y - f)", "weights": "fixed"}
    with pytest.raises(SpecError, match=r"expression has no parameters .*weights: fixed.*init_steps: 0") as caught:
        trained(tmp_path, method, loss=loss, meta=meta)
    assert caught.value.field == "learner.method"


def test_a_fixed_formula_survives_as_files() -> None:
    loss = built("y * log(f)", "classification", weights="fixed")
    files = loss.files()
    found = loss_from_bytes(files["learned_loss.safetensors"], files["learned_loss.json"], "the test")
    assert found.settings == loss.settings
    assert all(column.isfinite().all() for column in found.surface())


def test_two_spellings_of_a_formula_are_one_setting() -> None:
    one, other = (
        loss_settings({"name": "expression", "formula": text}) for text in ("(y-f)**2", "square( sub(y, f(x)) )")
    )
    assert one == other
    assert one["formula"] == "square(y - f)"


@pytest.mark.parametrize(("leaf", "highest"), [("y", 50), ("-y", 48)])
def test_a_formula_that_is_accepted_is_accepted_again(leaf: str, highest: int) -> None:
    """The spec in a ledger has the formula in infix form, in which -y is higher: -1 * y."""
    heights = {height: f"f*{'tanh(' * (height - 1)}{leaf}{')' * (height - 1)}" for height in range(40, 53)}
    for height, formula in heights.items():
        if height > highest:
            with pytest.raises(SpecError, match="nested"):
                loss_settings({"name": "expression", "formula": formula})
            continue
        found = loss_settings({"name": "expression", "formula": formula})
        assert loss_settings(found) == found
        build_loss(LearnedLossSpec.model_validate(found), "regression", seed=0)


def test_a_formula_that_is_too_long_when_it_is_written_out_is_refused() -> None:
    product = "-y"
    for _ in range(10):
        product = f"({product})*({product})"
    with pytest.raises(SpecError, match="10000"):
        loss_settings({"name": "expression", "formula": f"f*{product}"})


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("square(y - 1)", "has no f, the prediction"),
        ("square(f)", "has no y, the target"),
        ("sqare(y - f)", "at character 1 .*did you mean 'square'"),
        (1, "valid string"),
        (None, "valid string"),
    ],
)
def test_a_bad_formula_is_refused_with_its_field(formula: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        loss_settings({"name": "expression", "formula": formula})
    assert caught.value.field == "loss.formula"
    with pytest.raises(SpecError, match="required"):
        loss_settings({"name": "expression"})
