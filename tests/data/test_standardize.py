"""`task.standardize`: inputs, targets, both or neither are scaled by the train split; ids never are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray import data
from olfl_ray.spec import TrialConfig, parse_fields
from olfl_ray.trial import TrialEnvironment
from olfl_ray.trial.build import batches_of


def batches(dataset: data.Dataset, tmp_path: Path, **standardize: bool) -> data.TaskData:
    config = TrialConfig.model_validate({"task": {"dataset": "diabetes", "standardize": standardize}})
    return batches_of(config, TrialEnvironment(cache=tmp_path), dataset, 0, whole=False)


@pytest.mark.parametrize("x", [True, False])
@pytest.mark.parametrize("y", [True, False])
def test_inputs_and_targets_are_scaled_as_the_spec_says(
    x: bool, y: bool, diabetes: data.Dataset, tmp_path: Path
) -> None:
    found = batches(diabetes, tmp_path, x=x, y=y)
    inputs, targets = found.evaluation("train")
    assert bool((inputs.mean(0).abs() < 1e-4).all()) == x
    assert bool((targets.mean(0).abs() < 1e-4).all()) == y
    assert (found.target_scale is not None) == y
    raw = diabetes.x[:5]
    assert torch.equal(found.scaler()(raw), raw) == (not x)
    if not (x or y):
        assert inputs.dtype == targets.dtype == torch.float32
        assert set(map(tuple, inputs.tolist())) <= set(map(tuple, diabetes.x.tolist()))


def test_category_that_train_lacks_is_encoded_as_0_without_scaling_too(diabetes: data.Dataset, tmp_path: Path) -> None:
    x, indicators = diabetes.x.clone(), torch.zeros(10, dtype=torch.bool)
    rows = batches(diabetes, tmp_path)._rows["test"]
    x[:, 0], indicators[0] = 0.0, True
    x[rows[0], 0] = 1.0
    inputs, _ = batches(replace(diabetes, x=x, indicators=indicators), tmp_path, x=False).evaluation("test")
    assert torch.equal(inputs[:, 0], torch.zeros(len(rows)))
    assert torch.equal(inputs[:, 1:], x[rows, 1:])


def test_ids_are_never_scaled(diabetes: data.Dataset, tmp_path: Path) -> None:
    ids = replace(diabetes, x=torch.arange(442 * 6).reshape(442, 2, 3))
    inputs, _ = batches(ids, tmp_path).evaluation("train")
    assert inputs.dtype == torch.int64
    assert inputs.shape[1:] == (2, 3)


def test_default_standardisation_does_not_change_the_digest() -> None:
    def digest(**task: Any) -> str:
        return parse_fields({"name": "a", "task": {"dataset": "digits", **task}, "search": {"parameters": {}}}).digest

    assert digest() == digest(standardize={}) == digest(standardize={"x": True, "y": True})
    assert digest() != digest(standardize={"x": False})
    assert "standardize" not in str(
        parse_fields({"name": "a", "task": {"dataset": "digits"}, "search": {"parameters": {}}}).identity()
    )
