"""A multi-label trial: its metrics, with thresholds fixed or tuned; its trained model, exported with labels and thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray import data
from olfl_ray.errors import SpecError
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.tasks.label_metrics import best_thresholds, f1_of
from olfl_ray.trial import (
    TrainedModel,
    TrialEnvironment,
    check,
    data_summary,
    model_to_bytes,
    read_model,
    run,
    trained_model,
)

NAME = "synthetic-multilabel"


def config(method: str = "baseline", **changes: Any) -> TrialConfig:
    task = {"dataset": NAME, "model": "linear", "batch_size": 32, **changes.pop("task", {})}
    return TrialConfig.model_validate(
        {
            "task": task,
            "learner": {"method": method, "steps": 60, "optimizer": {"lr": 0.1}},
            "meta": {"init_steps": 5},
            "eval": {"every": 30, "report": "last"},
            "seeds": [5],
            "confirming": True,
            **changes,
        }
    )


def finished(own: TrialConfig, place: TrialEnvironment) -> tuple[dict[str, float], TrainedModel]:
    """What it recorded at the end, and its trained model."""
    *_, last = run(own, place)
    assert last.outcome == "finished"
    return {name: values[0] for name, values in last.report.items()}, trained_model(own, place, last.state)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    return TrialEnvironment(cache=tmp_path_factory.mktemp("multilabel"))


def test_training_beats_the_best_constant_prediction(place: TrialEnvironment) -> None:
    found, _ = finished(config(), place)
    assert found["test/task_loss"] < found["trivial/task_loss"]
    assert found["test/hamming"] < found["trivial/hamming"]
    for name in ("macro_f1", "micro_f1", "lrap"):
        assert found[f"test/{name}"] > found[f"trivial/{name}"]
    each = [found[f"test/f1_{label}"] for label in range(5)]
    assert found["test/macro_f1"] == pytest.approx(sum(each) / 5)


def test_tuned_thresholds_change_decisions_only(place: TrialEnvironment, tmp_path: Path) -> None:
    fixed, plain = finished(config(), place)
    tuned, model = finished(config(task={"options": {"thresholds": "tuned"}}), place)
    for name in ("test/task_loss", "test/lrap"):
        assert tuned[name] == fixed[name]
    assert tuned["test/macro_f1"] != fixed["test/macro_f1"]
    assert plain.thresholds == (0.0,) * 5
    assert model.thresholds != plain.thresholds
    # The exported model decides as the trial's last evaluation did, on the same test split.
    whole = data.load(NAME, {}, cache=place.cache, root=None)
    own = config()
    rows = data.split(
        whole, study_seed=own.study_seed, seed=seed_of(5, "split"), test=0.2, meta=0.1, selection=0.1
    ).test
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_to_bytes(model, "safetensors"))
    again = read_model(path)
    assert (again.thresholds, again.classes) == (model.thresholds, ("0", "1", "2", "3", "4"))
    for one, recorded in ((plain, fixed), (model, tuned), (again, tuned)):
        predicted = torch.zeros(len(rows), 5)
        for example, labels in enumerate(one.predict(whole.x[rows])):
            predicted[example, [int(label) for label in labels]] = 1
        assert f1_of(2)(predicted, whole.y[rows], None) == pytest.approx(recorded["test/f1_2"], abs=0.02)
        assert (predicted == whole.y[rows]).all(1).double().mean().item() == pytest.approx(
            recorded["test/subset_accuracy"], abs=0.02
        )


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(40, 3, generator=random)).round() / 4
    y = (torch.rand(40, 3, generator=random) < 0.3).float()
    y[:, 2] = 0
    found = best_thresholds(logits, y)
    assert found[2] == 0
    for label in (0, 1):
        f1 = f1_of(label)
        best = f1(logits - found, y, None)
        others = [f1(logits - value, y, None) for value in torch.linspace(-12, 12, 481).tolist()]
        assert best == pytest.approx(max(others), abs=1e-12)


def test_another_task_has_no_thresholds(place: TrialEnvironment) -> None:
    with pytest.raises(SpecError, match=r"task\.options\.thresholds"):
        check(config(task={"dataset": "diabetes", "options": {"thresholds": "tuned"}}), place)


@pytest.mark.parametrize("loss", [{"name": "mlp"}, {"name": "per_label", "labels": 5}])
def test_a_loss_is_learned_online(place: TrialEnvironment, loss: dict[str, Any]) -> None:
    found, _ = finished(config("online", loss=loss), place)
    assert found["test/task_loss"] > 0


def test_a_summary_counts_the_labels(place: TrialEnvironment) -> None:
    summary = data_summary(config(), place)
    whole = data.load(NAME, {}, cache=place.cache, root=None)
    assert list(summary.classes.values()) == whole.y.sum(0).tolist()
    assert sum(summary.rarest_splits.values()) == min(summary.classes.values())
    text = str(summary)
    cardinality = whole.y.sum(1).mean().item()
    assert f"labels per example (cardinality): {cardinality:.4g} of 5, density {cardinality / 5:.4g}" in text
    assert "target 0" not in text
    examined = check(config(), place)
    assert examined.labels
    assert examined.classes == whole.y.sum(0).tolist()
    assert examined.goals["f1_0"] == "maximize"


def test_each_metric_can_decide_a_search(place: TrialEnvironment) -> None:
    for name in check(config(), place).goals:
        goal = "minimize" if name in ("task_loss", "hamming") else "maximize"
        check(config(metric=f"selection/{name}", goal=goal), place)
