"""Metrics of classification and regression, compared with values calculated by hand."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, r2_score

from olfl_ray.errors import SpecError
from olfl_ray.spec import MetricSpec
from olfl_ray.tasks import TASKS, metrics_of

# Three of class 0, two of class 1, one of class 2. Predicted: 0 0 1 1 1 0.
Y = torch.tensor([0, 0, 0, 1, 1, 2])
LOGITS = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 2, 0], [2, 0, 0]])
P = math.exp(2) / (math.exp(2) + 2)
"""Confidence of each of these predictions."""


def measured(task: str, outputs: torch.Tensor, y: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, float]:
    return {m.name: m.compute(outputs, y, scale) for m in TASKS.find(task, "task.kind")().metrics}


def test_classification_by_hand() -> None:
    found = measured("classification", LOGITS, Y)
    f1 = ((2 * 2 / (2 * 2 + 1 + 1)) + (2 * 2 / (2 * 2 + 1)) + 0) / 3
    assert found == pytest.approx(
        {
            "error": 2 / 6,
            "accuracy": 4 / 6,
            "balanced_error": 1 - (2 / 3 + 1 + 0) / 3,
            "macro_f1": f1,
            "nll": -(4 * math.log(P) + 2 * math.log((1 - P) / 2)) / 6,
            "ece": abs(4 / 6 - P),
        },
        rel=1e-6,
    )


def test_a_class_absent_from_the_split_does_not_count_as_an_error() -> None:
    found = measured("classification", LOGITS[:2], Y[:2])
    assert (found["balanced_error"], found["macro_f1"]) == (0.0, 1.0)


def test_regression_metrics_are_in_the_targets_units() -> None:
    y, output = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [1.0], [0.0]])
    found = measured("regression", output, y, torch.tensor([10.0]))
    assert found == pytest.approx({"rmse": 10 * math.sqrt(5 / 3), "mse": 500 / 3, "mae": 10.0, "r2": 1 - 5 / 2})


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_scikit_learns_bit_for_bit(seed: int) -> None:
    torch.manual_seed(seed)
    count, outputs = 2 + 7 * seed, 2 + seed
    logits, y = torch.randn(count, outputs), torch.randint(outputs, (count,))
    found, predicted = measured("classification", logits, y), logits.argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is predicted and absent has no recall
        assert found["balanced_error"] == 1.0 - balanced_accuracy_score(y, predicted)
    assert found["macro_f1"] == f1_score(y, predicted, average="macro", zero_division=0)
    targets, output = torch.randn(count, 1 + seed % 3), torch.randn(count, 1 + seed % 3)
    if seed % 4 == 0:
        targets[:, 0] = 1.5
        output[:, 0] = 1.5 if seed % 8 else 0.0
    assert measured("regression", output, targets)["r2"] == r2_score(targets.double(), output.double())


def test_trivial_prediction_is_the_largest_class_or_the_mean() -> None:
    train = torch.tensor([1] * 8 + [0] * 2)
    logits = TASKS.find("classification", "f")().trivial(train, 4, 3)
    found = measured("classification", logits, torch.tensor([1, 1, 0, 2]))
    assert logits.shape == (4, 3)
    assert found["error"] == 0.5
    assert torch.isfinite(logits).all()
    mean = TASKS.find("regression", "f")().trivial(torch.tensor([[1.0], [3.0]]), 2, 1)
    assert measured("regression", mean, torch.tensor([[2.0], [2.0]]))["mse"] == 0.0


def test_goals_and_units_are_declared_for_each_metric() -> None:
    for name in TASKS.names():
        task = TASKS.find(name, "task.kind")
        assert task.primary in {metric.name for metric in task.metrics}
        assert all(metric.goal in ("minimize", "maximize") and metric.meaning for metric in task.metrics)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="classification"):
        TASKS.find("clasification", "task.kind")
    with pytest.raises(SpecError, match="standard library"):
        TASKS.find("collections:OrderedDict", "task.kind")


def test_users_metric_receives_outputs_and_targets_and_keeps_its_goal() -> None:
    spec = MetricSpec(name="tests_support_metrics:top", goal="maximize", unit="share")
    with pytest.raises(SpecError, match=r"task\.metrics"):
        metrics_of(TASKS.find("classification", "f")(), [spec])
    own = MetricSpec(name="torch.nn.functional:cross_entropy", goal="minimize")
    found = metrics_of(TASKS.find("classification", "f")(), [own])[-1]
    assert (found.name, found.goal) == ("cross_entropy", "minimize")
    assert found.compute(LOGITS, Y, None) == pytest.approx(torch.nn.functional.cross_entropy(LOGITS, Y).item())


def test_two_metrics_with_the_same_name_are_refused() -> None:
    twice = [MetricSpec(name="torch:sum"), MetricSpec(name="math:fsum"), MetricSpec(name="statistics:fsum")]
    with pytest.raises(SpecError, match="fsum"):
        metrics_of(TASKS.find("classification", "f")(), twice)
