"""TaylorGLO's polynomial: its coefficients are derivatives at the centre, its defaults the squared error; CMA-ES searches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from olfl_ray.losses import build_loss
from olfl_ray.losses.learned.taylor import COEFFICIENTS, Taylor
from olfl_ray.spec import LearnedLossSpec, TrialConfig
from olfl_ray.study import Study
from olfl_ray.trial import TrialEnvironment, check, run

SWEEP = Path(__file__).parents[2] / "sweeps" / "diabetes_taylor.yaml"


def trained(tmp_path: Path, method: str, **changes: Any) -> dict[str, Tensor]:
    config = TrialConfig.model_validate(
        {
            "task": {"dataset": "diabetes", "model": {"name": "mlp", "hidden": [8]}, "batch_size": 16},
            "learner": {"method": method, "steps": 20, "optimizer": {"name": "sgd", "lr": 0.05}},
            "eval": {"every": 10},
            "seeds": [1],
            **changes,
        }
    )
    place = TrialEnvironment(cache=tmp_path)
    check(config, place)
    theta: dict[str, Tensor] = list(run(config, place))[-1].state.replicates[0].learner.theta
    return theta


def polynomial(**settings: float) -> Taylor:
    return Taylor(Taylor.Config(weights="fixed", **settings))


def test_the_defaults_train_as_the_squared_error(tmp_path: Path) -> None:
    one = trained(tmp_path, "offline", loss={"name": "taylor", "weights": "fixed"}, meta={"init_steps": 0})
    other = trained(tmp_path, "baseline")
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


def test_each_coefficient_is_the_derivative_that_it_is_named_after() -> None:
    given = dict(zip(COEFFICIENTS, (0.3, -1.2, 0.7, -0.4, 1.1, 0.9), strict=True))
    loss = polynomial(target_center=0.5, output_center=-0.25, **given)
    target, output = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, -0.25))
    for name, wanted in given.items():
        value = loss(output, target)
        for letter in name[::-1]:  # in f first: a term without it has no slope in f
            (value,) = torch.autograd.grad(value, output if letter == "f" else target, create_graph=True)
        assert value.item() == pytest.approx(wanted), name


def test_other_centres_give_no_other_slopes() -> None:
    """(y - 1)^2 f / 2 around 1 is y^2 f / 2 - y f + f / 2 around 0."""
    output, target = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output.requires_grad_()
    none = {"ff": 0.0, "yf": 0.0}
    moved = polynomial(target_center=1.0, yyf=1.0, **none)(output, target)
    plain = polynomial(f=0.5, ff=0.0, yf=-1.0, yyf=1.0)(output, target)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), output)[0] for value in (moved, plain)))


def test_every_term_reaches_the_prediction() -> None:
    output, target = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    output.requires_grad_()
    for name in COEFFICIENTS:
        value = polynomial(**{"ff": 0.0, "yf": 0.0, name: 1.0})(output, target)
        assert torch.autograd.grad(value.sum(), output)[0].abs().max() > 0, name


def test_learned_coefficients_are_phi() -> None:
    loss = build_loss(LearnedLossSpec.model_validate({"name": "taylor", "fff": 3.0}), "regression", seed=0)
    assert [value.tolist() for value in loss.parameters()] == [[0.0, 2.0, 3.0, -2.0, 0.0, 0.0]]


def test_cma_es_searches_the_two_centres_and_six_coefficients_of_the_shipped_sweep() -> None:
    study = Study.from_yaml(SWEEP)
    assert study.spec.search.sampler.name == "cmaes"
    fields = {field for field in study.spec.parameters_of("taylor") if field.startswith("loss.")}
    assert fields == {f"loss.{name}" for name in ("target_center", "output_center", *COEFFICIENTS)}
    assert "taylor" in str(study.plan())
