"""A sweep of margin losses from its spec to the benchmark's page and to a model that predicts labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.dosa import write_page
from olfl_ray.spec import parse_fields
from olfl_ray.study import Home, Study

SPEC = {
    "name": "margins",
    "task": {"dataset": "synthetic-multilabel", "model": {"name": "dosa", "hidden": [8], "steps": 3}},
    "learner": {"steps": 12, "optimizer": {"name": "adam", "lr": 0.01}},
    "eval": {"every": 6, "report": "last"},
    "replicates": 1,
    "search": {"metric": "selection/macro_f1", "parameters": {}},
    "arms": {
        "bce": {"trials": 1, "set": {"learner.method": "baseline"}},
        "fmm": {"trials": 1, "set": {"learner.method": "margin"}},
        "blocks": {
            "trials": 1,
            "set": {"learner.method": "label_blocks", "learner.options": {"blocks": [[0, 1], [2, 3, 4]]}},
        },
    },
    "confirm": {"seeds": 2},
    "concurrency": 2,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def study(home: Home) -> Study:
    found = Study.from_spec(parse_fields(SPEC), home=home)
    found.run(progress=False)
    return found


def test_page_has_the_arms_each_label_and_the_blocks(study: Study, home: Home, tmp_path: Path) -> None:
    text = write_page(study.name, home, tmp_path).read_text()
    for arm in SPEC["arms"]:
        assert f"\n| {arm} | 0." in text, "its mean on fresh seeds"
    for label in range(5):
        assert f"\n| {label} | 0." in text, "its share and F1 scores"
    assert "blocks, after block | F1 of block 1 | F1 of block 2" in text
    assert "Forgetting of blocks: " in text
    assert (tmp_path / "margins.png").stat().st_size > 10_000


def test_margins_are_in_the_records_and_not_in_the_models_outputs(study: Study) -> None:
    names = set(study.curves(arm="fmm")["metric"])
    assert {f"margin/{label}" for label in range(5)} <= names
    assert {f"selection/f1_{label}" for label in range(5)} <= names
    model = study.model("fmm/c0")
    assert model(model.example(3)).shape == (3, 5)
    assert torch.isfinite(model(model.example(3))).all()
