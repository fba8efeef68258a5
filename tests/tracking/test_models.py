"""A confirming trial's run has its model, which MLflow's registry and serving take; no pickle is written or read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from olfl_ray.data import InputScaler
from olfl_ray.tracking.mlflow import Runs, open_store
from olfl_ray.trial import TrainedModel
from olfl_ray.trial.model import Origin

FILES = {"MLmodel", "conda.yaml", "data", "input_example.json", "python_env.yaml", "requirements.txt"}


class Branching(nn.Module):
    """torch.export can't trace it."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def model_of(module: nn.Module) -> TrainedModel:
    origin = Origin(name="linear", options={}, input_shape=(3,), outputs=2, dtype=torch.float64)
    scaler = InputScaler(
        mean=torch.full((1, 3), 5.0, dtype=torch.float64),
        sd=torch.full((1, 3), 2.0, dtype=torch.float64),
        dtype=torch.float32,
    )
    return TrainedModel(module, scaler, origin=origin, kind="classification", classes=("no", "yes"))


MODEL = model_of(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


def runs_of(own: Any, model: Callable[[Any], TrainedModel] = lambda trial: MODEL, *, models: bool = True) -> Runs:
    client = open_store(own.uri, "olfl", own.storage.root)
    return Runs(client, replace(own.tracked, model=model), own.state.identity, "olfl", models=models)


@pytest.fixture
def own(home: Callable[..., Any]) -> Any:
    return home()


def delivered(own: Any, held: Callable[..., Any], name: str, runs: Runs) -> tuple[Any, set[str]]:
    """A trial's run, and the files of its model."""
    own.deliver(runs, name)
    there = held()
    run = there.of(own)[name]
    return run, {Path(file.path).name for file in there.client.list_artifacts(run.info.run_id, "model")}


def test_a_confirming_trials_model_is_loaded_and_registered(
    own: Any, held: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    own.trial("online/c0")
    run, files = delivered(own, held, "online/c0", runs_of(own))
    assert files >= FILES
    assert run.info.status == "FINISHED"
    assert "olfl.no_model" not in run.data.tags
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own.uri)
    mlflow.set_tracking_uri(own.uri)
    try:
        found = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
        mlflow.register_model(f"runs:/{run.info.run_id}/model", "mine")
        registered = mlflow.pyfunc.load_model("models:/mine/1")
    finally:
        mlflow.set_tracking_uri(None)
    for count in (1, 2, 7):
        x = MODEL.example(count)
        expected = MODEL(x).detach().numpy()
        np.testing.assert_allclose(found.predict(x.numpy()), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(registered.predict(x.numpy()), expected, rtol=1e-5, atol=1e-6)
    (inputs,) = found.metadata.signature.inputs
    assert (inputs.shape, inputs.type) == ((-1, 3), np.dtype("float64"))
    assert found.metadata.metadata["classes"] == ["no", "yes"]
    np.testing.assert_allclose(found.predict(found.input_example), MODEL(MODEL.example(2)).detach().numpy(), rtol=1e-5)


def test_only_a_confirming_trial_has_one_and_only_where_it_is_asked_for(own: Any, held: Callable[..., Any]) -> None:
    def none(trial: Any) -> TrainedModel:
        raise AssertionError("no model is needed")

    own.trial("online/0")
    own.trial("online/c0")
    own.trial("online/c1", end="diverged")
    for name, models in (("online/0", True), ("online/c1", True), ("online/c0", False)):
        run, files = delivered(own, held, name, runs_of(own, none, models=models))
        assert not files
        assert "olfl.no_model" not in run.data.tags


def test_a_driver_killed_before_the_end_of_the_run_leaves_one_model(
    own: Any, held: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own.trial("online/c0")
    first = runs_of(own)
    with monkeypatch.context() as patch:
        patch.setattr(type(first._client), "set_terminated", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            own.deliver(first, "online/c0")
    before = held().of(own)["online/c0"]
    assert before.info.status == "RUNNING"
    run, files = delivered(own, held, "online/c0", runs_of(own))
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert files >= FILES
    data = held().client.list_artifacts(run.info.run_id, "model/data")
    assert [Path(file.path).name for file in data] == ["model.pt2"]


@pytest.mark.parametrize("way", ["absent data", "branching"])
def test_a_model_that_can_not_be_written_keeps_no_run_from_its_end(
    own: Any, held: Callable[..., Any], way: str
) -> None:
    def lost(trial: Any) -> TrainedModel:
        raise ValueError("absent data\nmore")

    own.trial("online/c0")
    runs = runs_of(own, lost if way == "absent data" else lambda trial: model_of(Branching()))
    run, files = delivered(own, held, "online/c0", runs)
    assert not files
    assert run.info.status == "FINISHED"
    assert run.data.tags["olfl.no_model"].startswith("absent data" if way == "absent data" else "format: torch.export")
    assert "\n" not in run.data.tags["olfl.no_model"]
