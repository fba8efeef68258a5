"""A user's own two-headed module and data, in one real sweep: each head is measured, confirmed, reported and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from support.commands import olfl

from olfl_ray.study import Study, load_model

MINE = '''
import numpy as np
import torch
from torch import nn


def bottles(rows=120):
    """The kind of a bottle, and how full it is."""
    draw = np.random.default_rng(0)
    kind = np.arange(rows) % 3
    x = draw.normal(size=(rows, 6)) + 2 * np.eye(6)[kind]
    return x, {"kind": np.array(["ale", "gin", "rum"])[kind], "level": 50 + 20 * x[:, 3:4]}


class Bottles(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh())
        self.kind, self.level = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, x):
        features = self.body(x)
        return {"kind": self.kind(features), "level": self.level(features)}


def build(input_shape, outputs):
    return Bottles(*input_shape)
'''
SPEC = {
    "name": "bottles",
    "task": {
        "dataset": "two_headed:bottles",
        "model": "two_headed:build",
        "options": {"subsets": "random", "reference": {"kind": 0.2, "level": 10.0}},
    },
    "learner": {"steps": 60, "optimizer": {"name": "sgd", "lr": 0.1}},
    "meta": {"init_steps": 10, "eta_online": 0.001},
    "eval": {"every": 20},
    "search": {
        "metric": "selection/delta_m",
        "goal": "maximize",
        "parameters": {"learner.optimizer.lr": {"min": 0.03, "max": 0.3, "log": True}},
    },
    "arms": {
        "baseline": {"trials": 1, "set": {"learner.method": "baseline"}},
        "uncertainty": {"trials": 1, "set": {"learner.method": "uncertainty"}},
        "online": {"trials": 1, "set": {"learner.method": "online"}},
    },
    "confirm": {"seeds": 1},
    "tracking": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep."""
    folder = tmp_path_factory.mktemp("bottles")
    (folder / "two_headed.py").write_text(MINE)
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    found = olfl("sweep", "run", "spec.yaml", "--home", "home", cwd=folder, modules=[folder])
    assert found.returncode == 0, found.stderr
    return folder


def test_table_has_the_searched_metric_and_records_have_each_head(folder: Path) -> None:
    study = Study.open("bottles", home=folder / "home")
    assert len(study.table) == 3
    measured = set(study.curves("uncertainty/0")["metric"])
    assert {"selection/kind_error", "selection/level_rmse", "selection/delta_m", "train/weight_kind"} <= measured


def test_report_names_each_head(folder: Path) -> None:
    page = (folder / "home" / "studies" / "bottles" / "report" / "index.html").read_text()
    assert "head kind" in page
    assert "classification, 3 outputs" in page
    assert "train/weight_level" in page


def test_exported_model_has_both_heads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = olfl(
        "trial",
        "export",
        "bottles/baseline/c0",
        "--home",
        "home",
        "--to",
        "m.safetensors",
        "--allow",
        "two_headed",
        cwd=folder,
        modules=[folder],
    )
    assert found.returncode == 0, found.stderr
    monkeypatch.syspath_prepend(str(folder))
    predicted = load_model(folder / "m.safetensors", allow=["two_headed:build"]).predict(torch.zeros(2, 6))
    assert isinstance(predicted, dict)
    assert set(predicted) == {"kind", "level"}
    assert set(predicted["kind"]) <= {"ale", "gin", "rum"}
