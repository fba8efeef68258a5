"""A trained model in a file of each format gives what it gives in memory, and the file says what it is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from olfl_ray import data
from olfl_ray.data import InputScaler
from olfl_ray.errors import DataError, SetupError
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import (
    FORMATS,
    TrainedModel,
    TrialEnvironment,
    model_to_bytes,
    read_model,
    run,
    trained_model,
)
from olfl_ray.trial.model import Origin

BUILDERS = """
import numpy as np
import torch
from torch import nn

Y = np.random.default_rng(0).integers(0, 2, 200)
NAMES = np.array(["no", "yes"])[Y]


def pixels():
    x = np.random.default_rng(1).integers(0, 100, (200, 3, 8, 8)) + 100 * Y[:, None, None, None]
    return x.astype(np.uint8), NAMES


def features():
    return np.random.default_rng(2).normal(size=(200, 4)) * 1e3 + 3000.0 * Y[:, None], NAMES


def tokens():
    return np.random.default_rng(3).integers(0, 20, (200, 5)) + 20 * Y[:, None], NAMES


def convolution(input_shape, outputs):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(outputs)
    )


def embedded(input_shape, outputs):
    return nn.Sequential(nn.Embedding(40, 4), nn.Flatten(), nn.Linear(20, outputs))
"""
CASES = {
    "digits": "mlp",
    "diabetes": "linear",
    "own_parts:features": "mlp",
    "own_parts:pixels": "own_parts:convolution",
    "own_parts:tokens": "own_parts:embedded",
}


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model, and raw examples of its data set."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "own_parts.py").write_text(BUILDERS)
    sys.path.insert(0, str(folder))
    try:
        own = TrialConfig.model_validate(
            {
                "task": {"dataset": request.param, "model": CASES[request.param], "batch_size": 16},
                "learner": {"method": "baseline", "steps": 20},
                "eval": {"every": 10},
                "seeds": [5],
                "confirming": True,
            }
        )
        environment = TrialEnvironment(cache=folder)
        *_, last = run(own, environment)
        assert last.state is not None
        model = trained_model(own, environment, last.state)
        yield model, data.load(request.param, {}, cache=folder, root=None).x[:7]
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("own_parts", None)


@torch.no_grad()
def outputs(model: Any, x: Tensor) -> Tensor:
    found: Tensor = model(x)
    return found


def test_every_format_gives_the_models_outputs_for_batches_of_any_size(trained: Any, tmp_path: Path) -> None:
    model, x = trained
    files = {form: tmp_path / f"model.{form}" for form in FORMATS}
    for form, file in files.items():
        file.write_bytes(model_to_bytes(model, form, {"study": "mine"}))
    again = read_model(files["safetensors"], ["own_parts"])
    graph = torch.export.load(files["pt2"]).module()
    session = onnxruntime.InferenceSession(files["onnx"].read_bytes(), providers=["CPUExecutionProvider"])
    for batch in (x, x[:1], x[2:5]):
        expected = outputs(model, batch)
        assert torch.equal(outputs(again, batch), expected)
        torch.testing.assert_close(outputs(graph, batch), expected)
        (found,) = session.run(["output"], {"input": batch.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert again.predict(x) == model.predict(x) if model.classes else again.classes == ()
    assert (again.kind, again.step, again.origin) == (model.kind, model.step, model.origin)


def test_every_file_says_what_the_model_is(trained: Any, tmp_path: Path) -> None:
    model, _ = trained
    about = {"study": "mine", "settings": {"seeds": [5]}}
    content = {form: model_to_bytes(model, form, about) for form in FORMATS}
    (tmp_path / "model.safetensors").write_bytes(content["safetensors"])
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        notes = [file.metadata()["olfl_ray"]]
    extra = {"olfl_ray.json": ""}
    torch.export.load(io.BytesIO(content["pt2"]), extra_files=extra)
    (written,) = onnx.load_from_string(content["onnx"]).metadata_props
    assert written.key == "olfl_ray"
    for note in map(json.loads, [*notes, extra["olfl_ray.json"], written.value]):
        assert note["classes"] == list(model.classes)
        assert note["model"]["name"] == model.origin.name
        assert note["input"]["shape"] == list(model.origin.input_shape)
        assert (note["study"], note["settings"]) == ("mine", {"seeds": [5]})


def test_an_example_has_the_form_of_the_data_and_is_none_of_them(trained: Any) -> None:
    model, x = trained
    example = model.example(3)
    assert (example.shape[1:], example.dtype, len(example)) == (x.shape[1:], x.dtype, 3)
    assert torch.isfinite(example.double()).all()
    assert torch.isfinite(outputs(model, example)).all()
    if example.is_floating_point():
        assert not (example[:, None] == x).flatten(2).all(-1).any()


class Odd(nn.Module):
    """Branches on its values, or draws random numbers."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.weight = way, nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "values" and x.sum() > 0:
            return x
        return x @ self.weight + torch.rand_like(x) if self.way == "noise" else x @ self.weight


def model_of(module: nn.Module, name: str = "linear") -> TrainedModel:
    origin = Origin(name=name, options={}, input_shape=(2,), outputs=2, dtype=torch.float32)
    return TrainedModel(
        module, InputScaler(dtype=torch.float32), origin=origin, kind="classification", classes=("a", "b")
    )


@pytest.mark.parametrize(("way", "reason"), [("values", "trace"), ("noise", "other outputs")])
def test_a_graph_that_is_not_the_module_is_refused(way: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        model_to_bytes(model_of(Odd(way)), "pt2")


def test_an_unknown_format_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="did you mean 'onnx'"):
        model_to_bytes(model_of(nn.Linear(2, 2)), "onx")
    monkeypatch.setattr("olfl_ray.trial.export.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"olfl_ray\[onnx\]"):
        model_to_bytes(model_of(nn.Linear(2, 2)), "onnx")


def exported(folder: Path, name: str = "linear") -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(model_to_bytes(model_of(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), name), "safetensors"))
    return file


def test_the_scaler_in_a_file_fills_missing_values(tmp_path: Path) -> None:
    model = model_of(nn.Linear(2, 2))
    model.scaler = InputScaler(
        fill=torch.tensor([1.0, 2.0]), mean=torch.ones(1, 2), sd=torch.full((1, 2), 2.0), dtype=torch.float32
    )
    x = torch.tensor([[torch.nan, 5.0], [3.0, torch.nan]])
    assert outputs(model, x).isfinite().all()
    graph = torch.export.load(io.BytesIO(model_to_bytes(model, "pt2"))).module()
    torch.testing.assert_close(outputs(graph, x), outputs(model, x))
    model.module = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))  # as `linear` is built
    (tmp_path / "model.safetensors").write_bytes(model_to_bytes(model, "safetensors"))
    assert torch.equal(outputs(read_model(tmp_path / "model.safetensors"), x), outputs(model, x))


def changed(file: Path, **entries: Any) -> None:
    """The same tensors with other settings."""
    with safe_open(file, framework="pt") as opened:
        note = json.loads(opened.metadata()["olfl_ray"])
    save_file(load_file(file), file, {"olfl_ray": json.dumps(note | entries)})


def test_a_builder_that_is_not_allowed_is_not_called(tmp_path: Path) -> None:
    file = exported(tmp_path, "absent_parts:build")
    with pytest.raises(DataError, match=r"allow=\['absent_parts:build'\]"):
        read_model(file)
    with pytest.raises(DataError, match=r"absent_parts.* be imported"):  # allowed, but not there
        read_model(file, ["absent_parts"])


@pytest.mark.parametrize(
    "entries",
    [
        {"outputs": 3},
        {"outputs": 10**9},
        {"outputs": "many"},
        {"model": {"name": "mlp", "options": {}}},
        {"model": {}},
        {"input": {"shape": [2], "dtype": "float32"}},
        {"input": {"shape": [2], "dtype": "complex64", "scaled_to": None}},
        {"classes": None},
    ],
)
def test_a_file_with_other_settings_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    file = exported(tmp_path)
    read_model(file)
    changed(file, **entries)
    with pytest.raises(DataError, match="no model that olfl_ray exported"):
        read_model(file)


@pytest.mark.parametrize(
    "path",
    [
        "model",
        "model.name",
        "model.options",
        "input",
        "input.shape",
        "input.dtype",
        "outputs",
        "kind",
        "classes",
        "step",
    ],
)
def test_whatever_a_file_says_is_a_model_or_refused(path: str, tmp_path: Path) -> None:
    file = exported(tmp_path)
    with safe_open(file, framework="pt") as opened:
        there = json.loads(opened.metadata()["olfl_ray"])
    *folders, last = path.split(".")
    for value in (
        None,
        True,
        -1,
        1.5,
        float("inf"),
        float("nan"),
        10**30,
        [],
        [[]],
        [float("inf")],
        [-1],
        {},
        {"a": 1},
    ):
        entries: Any = json.loads(json.dumps(there))
        place = entries
        for folder in folders:
            place = place[folder]
        if place[last] == value:
            continue
        place[last] = value
        changed(file, **entries)
        accepted = value == [] if path in ("classes", "model.options") else False
        with contextlib.nullcontext() if accepted else pytest.raises(DataError, match="no model"):
            read_model(file)


def test_a_pipe_or_a_folder_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DataError, match="a pipe"):
            read_model(path)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    whole = exported(tmp_path).read_bytes()
    file = tmp_path / "other.safetensors"
    for content in (b"", whole[:100], whole[:-4], b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(DataError, match="no model that olfl_ray exported"):
            read_model(file)
    save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(DataError, match="olfl_ray"):
        read_model(file)
    with pytest.raises(DataError, match="can't be read"):
        read_model(tmp_path / "none.safetensors")
