"""A finished study with a proximal optimizer and a learned strength: its table, records, report, and pruned models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import olfl
from support.json_documents import check

import olfl_ray as ol
from olfl_ray.study import Study

SPEC: dict[str, Any] = {
    "name": "sparse",
    "task": {
        "dataset": "digits-tasks",
        "options": {"heads": ["digit", "odd"], "subsets": "random"},
        "model": {"name": "multihead", "hidden": [24, 12]},
    },
    "learner": {"steps": 20, "optimizer": {"name": "sgd", "lr": 0.1}},
    "meta": {"init_steps": 0, "eta_online": 0.01},
    "eval": {"every": 10, "report": "last"},
    "replicates": 1,
    "search": {"metric": "selection/digit_error", "goal": "minimize", "parameters": {}},
    "arms": {
        "baseline": {"set": {"learner.method": "baseline"}, "trials": 1},
        "fixed": {
            "set": {
                "learner.method": "baseline",
                "learner.optimizer.name": "prox_sgd",
                "learner.optimizer.strength": 0.045,
            },
            "trials": 1,
        },
        "learned": {
            "set": {"learner.method": "meta_sparsity", "learner.options": {"strength": 0.045}},
            "trials": 1,
        },
    },
    "confirm": {"seeds": 1},
    "tracking": [],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def study(home: Path) -> Study:
    study = ol.Study(**SPEC, home=home)
    result = study.run(progress=False)
    assert (result.finished, result.state.failures) == (True, {})
    return study


def test_trials_record_sparsity_and_strength(study: Study) -> None:
    sparsity = study.trials()["test/group_sparsity"]
    assert 0 < sparsity["fixed/c0"] < 1
    assert 0 < sparsity["learned/c0"] < 1
    assert sparsity.isna()["baseline/c0"]
    assert study.trials()["test/weight_sparsity"]["fixed/c0"] > 0
    strengths = study.curves("learned/c0", metric="phi/strength")["value"]
    assert len(set(strengths)) == 2


def test_report_draws_the_strength(study: Study) -> None:
    assert "phi/strength" in study.report().read_text(encoding="utf-8")


def test_pruned_model_predicts_what_the_trial_s_model_does(study: Study) -> None:
    for trial in ("fixed/c0", "learned/c0"):
        dense, small = study.model(trial), study.trial(trial).pruned()
        x = dense.example(50)
        torch.testing.assert_close(small(x), dense(x), rtol=1e-5, atol=1e-5)
        found = study.speed(trial, examples=64)
        assert found.pruned_weights < found.dense_weights
        assert found.pruned_weights == sum(value.numel() for value in small.module.parameters())


def test_command_line_exports_it_with_its_speed(study: Study, home: Path, tmp_path: Path) -> None:
    written = olfl("trial", "export", "sparse/fixed/c0", "--pruned", "--json", "--home", home, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    found = json.loads(written.stdout)
    check("olfl trial export", found)
    assert found["pruned"]["pruned_weights"] < found["pruned"]["dense_weights"]
    x = study.model("fixed/c0").example(7)
    graph = torch.export.load(tmp_path / "sparse-fixed-c0.pt2").module()
    torch.testing.assert_close(graph(x), study.model("fixed/c0")(x), rtol=1e-5, atol=1e-5)
    refused = olfl(
        "trial", "export", "sparse/fixed/c0", "--pruned", "--format", "safetensors", "--home", home, cwd=tmp_path
    )
    assert refused.returncode == 2
    assert "pt2 or onnx" in refused.stderr
