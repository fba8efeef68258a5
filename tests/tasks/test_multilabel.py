"""Multi-label classification: metrics against scikit-learn, stratified splits, targets that are refused."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from olfl_ray.tasks.multilabel import Multilabel
from olfl_ray.tasks.stratified import stratified


def drawn(seed: int) -> tuple[Tensor, Tensor]:
    """Logits with ties, and labels of which some never occur; an example without labels and one with all."""
    random = torch.Generator().manual_seed(seed)
    count, labels = 3 + 5 * seed, 1 + seed % 6
    logits = (4 * torch.randn(count, labels, generator=random)).round() / 4
    y = (torch.rand(count, labels, generator=random) < torch.rand(labels, generator=random)).float()
    y[0], y[1] = 0, 1
    if seed % 3 == 0:
        y[:, 0] = 0
    return logits, y


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_scikit_learns(seed: int) -> None:
    logits, y = drawn(seed)
    task, labels = Multilabel(), y.shape[1]
    own = task.metrics_of_outputs([f"label {label}" for label in range(labels)])
    found = {metric.name: metric.compute(logits, y, None) for metric in (*task.metrics, *own)}
    true, predicted = y.int().numpy(), (logits > 0).int().numpy()
    each = [reference.f1_score(true[:, k], predicted[:, k], zero_division=0.0) for k in range(labels)]
    assert found == pytest.approx(
        {
            "macro_f1": sum(each) / labels,
            "micro_f1": reference.f1_score(true.ravel(), predicted.ravel(), zero_division=0.0),
            "hamming": (true != predicted).mean(),
            "subset_accuracy": (true == predicted).all(1).mean(),
            "lrap": reference.label_ranking_average_precision_score(true, logits.numpy()),
            **{f"f1_label_{k}": value for k, value in enumerate(each)},
        },
        rel=1e-12,
    )
    if labels > 1:
        averages = {
            f"{how}_f1": reference.f1_score(true, predicted, average=how, zero_division=0.0)
            for how in ("micro", "macro")
        }
        also = {
            "hamming": reference.hamming_loss(true, predicted),
            "subset_accuracy": reference.accuracy_score(true, predicted),
        }
        assert {name: found[name] for name in (*averages, *also)} == pytest.approx({**averages, **also}, rel=1e-12)


def test_labels_whose_names_would_collide_are_numbered() -> None:
    names = ["amazed-suprised", "happy", "é"]
    found = [metric.name for metric in Multilabel().metrics_of_outputs(names)]
    assert found == ["f1_amazed_suprised", "f1_happy", "f1_é"]
    found = [metric.name for metric in Multilabel().metrics_of_outputs(["a b", "a-b", "c"])]
    assert found == ["f1_0", "f1_1", "f1_2"]
    assert not Multilabel().metrics_of_outputs([str(k) for k in range(101)])


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
def test_targets_other_than_0_and_1_are_refused(value: float) -> None:
    y = torch.zeros(4, 3)
    y[2, 1] = value
    with pytest.raises(ValueError, match=r"must be 0 or 1.*row 2, label 1"):
        Multilabel().checked(y)
    assert not Multilabel().recognizes(y)


def rare_labels() -> Tensor:
    """600 examples of 8 labels, the rarest in 6 of them, that occur together."""
    random = torch.Generator().manual_seed(3)
    base = torch.rand(600, 1, generator=random)
    shares = torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    return (base * torch.rand(600, 8, generator=random) < shares * 0.4).float()


def largest_gap(y: Tensor, parts: list[Tensor]) -> float:
    """Largest difference between a label's share in a part and in all examples, relative to the latter."""
    everywhere = y.mean(0)
    return max(((y[part].mean(0) - everywhere).abs() / everywhere).max().item() for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_the_labels_shares_that_a_random_split_misses(seed: int) -> None:
    y, fractions = rare_labels(), [0.2, 0.1]
    parts = stratified(y, fractions, torch.Generator().manual_seed(seed))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    assert largest_gap(y, parts) < 0.5 * largest_gap(y, [order[:120], order[120:180]])
    counts = y.sum(0)
    for part, fraction in zip(parts, fractions, strict=True):
        assert (y[part].sum(0) - fraction * counts).abs().max() <= 3
        assert len(part) == pytest.approx(fraction * len(y), abs=6)
        assert bool((y[part].sum(0) >= 1)[counts >= 20].all())
    assert not set(parts[0].tolist()) & set(parts[1].tolist())
    assert bool((y.sum(0) - y[torch.cat(parts)].sum(0) >= 1).all()), "the rest, which trains, lacks a label"


def test_parts_depend_on_the_seed_alone() -> None:
    y = rare_labels()
    one, same, other = (stratified(y, [0.3], torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert len(set(one.tolist()) & set(other.tolist())) < 0.6 * len(one)


def test_a_label_of_one_example_is_in_the_largest_part() -> None:
    y = torch.zeros(50, 2)
    y[:25, 0] = 1
    y[30, 1] = 1
    for seed in range(10):
        assert 30 not in torch.cat(stratified(y, [0.2, 0.2], torch.Generator().manual_seed(seed))).tolist()


def test_the_best_constant_prediction_is_each_labels_share() -> None:
    y = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    outputs = Multilabel().trivial(y, 2, 3)
    assert outputs.sigmoid() == pytest.approx(torch.tensor([[0.75, 0.25, 0.0]] * 2), abs=2e-6)
    assert bool(outputs.isfinite().all())
