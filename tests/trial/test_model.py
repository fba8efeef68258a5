"""A trained base learner takes raw inputs and predicts what its trial measured, in the targets' own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray import data
from olfl_ray.data import Dataset, TaskData
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes, trained_model


def config(dataset: Any, model: Any = "linear", **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"dataset": dataset, "model": model, "batch_size": 16},
            "learner": {"method": "baseline", "steps": 40},
            "eval": {"every": 10},
            "seeds": [5, 6],
            "confirming": True,
            **changes,
        }
    )


def held_rows(dataset: Dataset, own: TrialConfig, replicate: int) -> torch.Tensor:
    split = own.task.split
    return data.split(
        dataset,
        study_seed=own.study_seed,
        seed=seed_of(own.seeds[replicate], "split"),
        test=split.test,
        meta=split.meta,
        selection=split.selection,
    ).test


def trained(own: TrialConfig, place: TrialEnvironment) -> tuple[Any, Any]:
    *_, last = run(own, place)
    assert last.outcome == "finished"
    return last, state_from_bytes(state_to_bytes(last.state))


def test_a_regression_predicts_in_the_targets_units(tmp_path: Path) -> None:
    own, place = config("diabetes"), TrialEnvironment(cache=tmp_path)
    last, state = trained(own, place)
    dataset = data.load("diabetes", {}, cache=tmp_path, root=None)
    for replicate in (0, 1):
        model, rows = trained_model(own, place, state, replicate), held_rows(dataset, own, replicate)
        errors = model.predict(dataset.x[rows]).double() - dataset.y[rows].double()
        assert errors.square().mean().sqrt().item() == pytest.approx(last.report["test/rmse"][replicate], rel=1e-5)
        assert model.classes == ()
        assert 60 < errors.add(dataset.y[rows]).mean() < 250  # disease progression, and no standardised value
    assert own.seeds[0] != own.seeds[1]


DATA = """
import numpy as np
from torch import nn

R = np.random.default_rng(0)
Y = R.integers(0, 2, 200)
NAMES = np.array(["no", "yes"])[Y]

def pixels():
    x = R.integers(0, 100, (200, 3, 8, 8)) + 100 * Y[:, None, None, None]
    return x.astype(np.uint8), NAMES

def features():
    return np.random.default_rng(1).normal(size=(200, 4)) * 1e3 + 3000.0 * Y[:, None], NAMES

def tokens():
    return np.random.default_rng(2).integers(0, 20, (200, 5)) + 20 * Y[:, None], NAMES

def embedded(input_shape, outputs):
    return nn.Sequential(nn.Embedding(40, 4), nn.Flatten(), nn.Linear(20, outputs), nn.BatchNorm1d(outputs))
"""


@pytest.mark.parametrize(
    ("dataset", "model"), [("pixels", "linear"), ("features", "mlp"), ("tokens", "raw_data:embedded")]
)
def test_raw_inputs_of_any_kind_give_the_recorded_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, model: str
) -> None:
    (tmp_path / "raw_data.py").write_text(DATA)
    monkeypatch.syspath_prepend(tmp_path)
    own, place = config(f"raw_data:{dataset}", model), TrialEnvironment(cache=tmp_path)
    last, state = trained(own, place)
    whole = data.load(f"raw_data:{dataset}", {}, cache=tmp_path, root=None)
    found, rows = trained_model(own, place, state, 1), held_rows(whole, own, 1)
    assert found.classes == ("no", "yes")
    wrong = [
        whole.classes[label] != name
        for label, name in zip(whole.y[rows].tolist(), found.predict(whole.x[rows]), strict=True)
    ]
    assert sum(wrong) / len(wrong) == pytest.approx(last.report["test/error"][1], abs=1e-6)
    assert sum(wrong) / len(wrong) < 0.4
    assert found.state_dict().keys() >= {"scaler.mean"} or dataset == "tokens"


def test_it_is_the_best_evaluations_and_goes_through_torch_export(tmp_path: Path) -> None:
    own, place = config("digits", eval={"every": 10, "report": "best"}), TrialEnvironment(cache=tmp_path)
    _, state = trained(own, place)
    best = state.replicates[0].best
    assert best is not None
    model = trained_model(own, place, state)
    assert model.step == best.step
    weights = dict(model.module.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in best.theta.items())
    x = data.load("digits", {}, cache=tmp_path, root=None).x[:4]
    exported = torch.export.export(model, (x,)).module()
    assert torch.allclose(exported(x), model(x))


def test_a_scaler_fills_what_training_filled() -> None:
    x = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 100
    x[::4, 1] = torch.nan
    dataset = Dataset(name="gaps", kind="classification", x=x, y=torch.arange(60) % 2, outputs=2)
    splits = data.split(dataset, study_seed=0, seed=1, test=0.2, meta=0.1, selection=0.1)
    batches = TaskData(dataset, splits, device="cpu", augment="none", batch_size=4, seed=0)
    assert torch.equal(batches.scaler()(x[splits.test]), batches.evaluation("test")[0])
    assert batches.evaluation("test")[0].dtype == torch.float32
