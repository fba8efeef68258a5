"""The multi-task task: outputs and targets by head, the weighted loss, and measures by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.tasks import Head, Task, task_of
from olfl_ray.tasks.heads import packed, packed_targets, parts
from olfl_ray.tasks.multitask import MultiTask

HEADS = (
    Head(name="kind", kind="classification", outputs=3, classes=("a", "b", "c")),
    Head(name="size", kind="regression", outputs=2),
)
KIND, SIZE = torch.tensor([0, 2, 1, 2]), torch.tensor([[1.0, 2], [3, 5], [0, 1], [4, 4]])


def task(**options: object) -> MultiTask:
    found = task_of("multitask", heads=HEADS, options=options)
    assert isinstance(found, MultiTask)
    return found


def outputs() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def targets() -> Tensor:
    return packed_targets(HEADS, {"kind": KIND, "size": SIZE})


def test_outputs_lie_side_by_side_in_the_heads_order() -> None:
    by_head = {"size": torch.ones(4, 2), "kind": torch.zeros(4, 3)}
    together = packed(HEADS, by_head)
    assert together.tolist()[0] == [0, 0, 0, 1, 1]
    assert torch.equal(parts(HEADS, together)["size"], by_head["size"])
    assert packed(HEADS, together) is together
    assert targets().tolist()[1] == [0, 0, 1, 3, 5]


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"kind": torch.zeros(4, 3)}, "size"),
        ({"kind": torch.zeros(4, 3), "size": torch.zeros(4, 1)}, r"\(B, 2\)"),
        ([torch.zeros(4, 3), torch.zeros(4, 2)], "dict"),
    ],
)
def test_other_outputs_are_refused(found: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        packed(HEADS, found)


def test_task_loss_is_the_weighted_sum() -> None:
    f, y = outputs(), targets()
    kind, size = F.cross_entropy(f[:, :3], KIND), F.mse_loss(f[:, 3:], SIZE)
    torch.testing.assert_close(task().loss(f, y), kind + size)
    torch.testing.assert_close(task(weights={"size": 0.25}).loss(f, y), kind + 0.25 * size)


def test_hidden_heads_do_not_count() -> None:
    own, y = task(subsets="random"), targets()
    y[:, 3:] = math.nan
    f = outputs().requires_grad_()
    loss = own.loss(f, y)
    torch.testing.assert_close(loss, F.cross_entropy(f[:, :3], KIND))
    loss.backward()
    assert f.grad is not None
    assert not f.grad[:, 3:].any()


def test_every_non_empty_subset_is_equally_likely() -> None:
    own, y = task(subsets="random"), targets()
    drawn = Counter(tuple((~own.shown(y, str(step))[0].isnan()).tolist()) for step in range(3000))
    assert len(drawn) == 3
    assert all(abs(count / 3000 - 1 / 3) < 0.03 for count in drawn.values())
    assert torch.equal(own.shown(y, "7"), own.shown(y, "7")) or own.shown(y, "7").isnan().any()
    assert task().shown(y, "7") is y


def test_a_subset_may_have_any_of_many_heads() -> None:
    own = task_of(
        "multitask",
        heads=[Head(name=f"h{n}", kind="regression", outputs=1) for n in range(70)],
        options={"subsets": "random"},
    )
    drawn = torch.cat([own.shown(torch.zeros(1, 70), str(step)) for step in range(200)])
    assert (drawn.isnan().sum(0) - 100).abs().max() < 40


def test_metrics_of_a_head_are_those_of_its_own_task() -> None:
    f, y, scale = outputs(), targets(), torch.tensor([1.0, 1, 1, 2, 3])
    found = {metric.name: metric.compute(f, y, scale) for metric in task().metrics}
    for metric in task_of("classification").metrics:
        assert found[f"kind_{metric.name}"] == metric.compute(f[:, :3], KIND, None)
    for metric in task_of("regression").metrics:
        assert found[f"size_{metric.name}"] == metric.compute(f[:, 3:], SIZE, torch.tensor([2.0, 3]))
    assert found["size_loss"] == F.mse_loss(f[:, 3:], SIZE).item()


def test_pseudo_r2_is_r2_of_a_regression_and_mcfaddens_of_classes() -> None:
    f, y = outputs(), targets()
    own = task_of("multitask", heads=HEADS[1:])
    r2 = own.metrics[0].compute(f[:, 3:], y[:, 3:], None)
    total = 1 - ((SIZE - f[:, 3:]) ** 2).sum() / ((SIZE - SIZE.mean(0)) ** 2).sum()
    assert r2 == pytest.approx(total.item())
    one = task_of("multitask", heads=(Head(name="size", kind="regression", outputs=1),))
    assert one.metrics[0].compute(f[:, 3:4], y[:, 3:4], None) == pytest.approx(r2_score(SIZE[:, 0], f[:, 3]))
    entropy = -sum(p * math.log(p) for p in (0.25, 0.25, 0.5))
    kind = 1 - F.cross_entropy(f[:, :3].double(), KIND).item() / entropy
    assert task().metrics[0].compute(f, y, None) == pytest.approx((kind + r2) / 2)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_pseudo_r2_of_a_constant_target_is_not_a_number(kind: str) -> None:
    own = task_of("multitask", heads=(Head(name="size", kind=kind, outputs=2),))
    y = torch.tensor([0.0, 1.0] if kind != "regression" else [0.1, 0.3]).expand(7, 2)
    assert math.isnan(own.metrics[0].compute(outputs()[:1, :2].expand(7, 2), y, None))


def test_delta_m_is_the_mean_improvement_over_the_reference() -> None:
    own, f = task(reference={"kind": 0.5, "size": 2.0}), outputs()
    found = {metric.name: metric.compute(f, targets(), None) for metric in own.metrics}
    wanted = ((0.5 - found["kind_error"]) / 0.5 + (2.0 - found["size_rmse"]) / 2.0) / 2
    assert found["delta_m"] == pytest.approx(wanted)
    assert own.primary == "delta_m"
    assert "delta_m" not in {metric.name for metric in task().metrics}


def test_strata_are_the_first_classes() -> None:
    assert task().strata(targets()).tolist() == KIND.tolist()
    assert task_of("multitask", heads=HEADS[1:]).strata(targets()[:, 3:]).tolist() == [0] * 4


def test_names_of_heads_whose_metrics_collide_are_refused() -> None:
    heads = (
        Head(name="a", kind="classification", outputs=2),
        Head(name="a_balanced", kind="classification", outputs=2),
    )
    with pytest.raises(SpecError, match="a_balanced_error"):
        task_of("multitask", heads=heads)


def test_settings_of_a_task_without_some_are_refused() -> None:
    with pytest.raises(SpecError) as found:
        task_of("classification", options={"heads": ["a"]})
    assert found.value.field == "task.options.heads"
    assert isinstance(task_of("classification", options={}), Task)
