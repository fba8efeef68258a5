"""The loss network that knows the label: it starts as the shared one, and then treats labels apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from olfl_ray.errors import SpecError
from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.spec import LearnedLossSpec


def built(name: str, kind: str = "multilabel", **options: Any) -> LearnedLoss:
    return build_loss(LearnedLossSpec.model_validate({"name": name, "hidden": [8, 5], **options}), kind, seed=3)


OUTPUTS, TARGETS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.eye(4)[[0, 1, 2, 3, 0, 1]]


@pytest.mark.parametrize("kind", ["multilabel", "classification"])
def test_at_first_it_is_the_mlp_of_the_same_seed(kind: str) -> None:
    targets = TARGETS if kind == "multilabel" else TARGETS.argmax(1)
    assert torch.equal(built("per_label", kind, labels=4)(OUTPUTS, targets), built("mlp", kind)(OUTPUTS, targets))


def test_a_label_s_vector_changes_the_loss_of_that_label_alone() -> None:
    loss = built("per_label", labels=4)
    network: Any = loss.network
    outputs = OUTPUTS.clone().requires_grad_()
    (before,) = torch.autograd.grad(loss(outputs, TARGETS), outputs)
    with torch.no_grad():
        network.label_CH[2] = torch.randn(8, generator=torch.Generator().manual_seed(1))
    (after,) = torch.autograd.grad(loss(outputs, TARGETS), outputs)
    changed = (before != after).all(0).tolist()
    assert changed == [False, False, True, False]
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])


def test_without_an_index_it_is_the_mean_over_the_labels() -> None:
    loss = built("per_label", labels=4)
    network: Any = loss.network
    with torch.no_grad():
        network.label_CH.normal_(generator=torch.Generator().manual_seed(2))
    output, target = torch.rand(5), torch.ones(5)
    wide = (output[:, None].expand(5, 4), target[:, None].expand(5, 4), torch.arange(4).expand(5, 4))
    assert torch.allclose(network(output, target), network(*wide).mean(1))
    assert network(*wide).std(1).min() > 0


def test_another_number_of_labels_is_refused() -> None:
    with pytest.raises(SpecError, match=r"loss\.labels: is 5, but the data set has 4; set loss\.labels: 4"):
        built("per_label", labels=5)(OUTPUTS, TARGETS)
    with pytest.raises(SpecError, match=r"loss\.labels"):
        built("per_label")
