"""A user's CSV with several columns of 0 and 1: a sweep over it, its table, report and trained model. One start of Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import olfl_ray as ol

LABELS = ["happy", "quiet-still", "rare"]
FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(240, 4)).round(3), columns=list("abcd"))
FRAME["happy"] = (FRAME.a > 0).astype(int)
FRAME["quiet-still"] = (FRAME.b + FRAME.c > 0.5).astype(int)
FRAME["rare"] = (FRAME.d > 1.3).astype(int)
SPEC: dict[str, Any] = {
    "task": {"model": "linear", "batch_size": 16, "options": {"thresholds": "tuned"}},
    "learner": {"steps": 80, "optimizer": {"lr": 0.3}},
    "meta": {"init_steps": 5},
    "eval": {"every": 40},
    "replicates": 1,
    "search": {"metric": "selection/f1_happy", "parameters": {}},
    "arms": {
        "baseline": {"set": {"learner.method": "baseline"}, "trials": 1},
        "per_label": {"set": {"learner.method": "online", "loss.name": "per_label", "loss.labels": 3}, "trials": 1},
    },
    "confirm": {"seeds": 2},
    "tracking": [],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ol.Study:
    folder = tmp_path_factory.mktemp("labels")
    FRAME.to_csv(folder / "songs.csv", index=False)
    dataset = {"name": f"csv:{folder / 'songs.csv'}", "target": LABELS}
    made = ol.Study(name="songs", home=folder / "home", **{**SPEC, "task": {**SPEC["task"], "dataset": dataset}})
    made.run()
    return made


def test_each_label_is_measured_and_one_decides(study: ol.Study) -> None:
    report = study.report().read_text()
    for text in ("quiet-still", "labels per example (cardinality)", "<th>label</th>"):
        assert text in report
    cardinality = FRAME[LABELS].sum(axis=1).mean()
    assert f"{cardinality:.3f}"[:4] in report
    assert set(study.table["metric"]) == {"test/f1_happy"}
    assert "macro_f1" in report


def test_its_trained_model_names_the_labels(study: ol.Study) -> None:
    model = study.model("baseline/c0")
    assert model.classes == tuple(LABELS)
    assert len(model.thresholds) == 3
    found = model.predict(FRAME[list("abcd")].to_numpy())
    right = sum(("happy" in labels) == bool(true) for labels, true in zip(found, FRAME.happy, strict=True))
    assert right > 0.85 * len(FRAME)
