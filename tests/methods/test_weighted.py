"""Class weights: against closed forms, for labels and for classes; what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses import LossFiles, TaskLoss, task_loss
from olfl_ray.methods import Setting, method_of
from olfl_ray.spec import TrialConfig
from olfl_ray.tasks import task_of


def weighted(kind: str, weights: Any, task: str = "auto") -> TaskLoss:
    learner = {"method": "weighted", "options": {"weights": weights}}
    config = TrialConfig.model_validate({"task": {"dataset": "digits", "loss": task}, "learner": learner})
    setting = Setting(config=config, task=task_of(kind), kind=kind, outputs=3, theta={}, seed=0, losses=LossFiles())
    return method_of(config.learner).base_loss(setting, task_loss(task, kind))


LOGITS = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = (torch.rand(7, 3, generator=torch.Generator().manual_seed(1)) < 0.4).double()
CLASSES = torch.tensor([0, 1, 2, 0, 0, 1, 2])


@pytest.mark.parametrize("weights", [[3.0], [3.0, 0.5, 2.0]])
def test_positive_examples_of_a_label_have_its_weight(weights: list[float]) -> None:
    w, p = torch.tensor(weights, dtype=torch.float64), LOGITS.sigmoid()
    wanted = -(w * LABELS * p.log() + (1 - LABELS) * (1 - p).log()).mean()
    torch.testing.assert_close(weighted("multilabel", weights)(LOGITS, LABELS), wanted)


def test_examples_of_a_class_have_its_weight() -> None:
    w = torch.tensor([3.0, 0.5, 2.0], dtype=torch.float64)
    log_p = LOGITS.log_softmax(-1).gather(1, CLASSES[:, None])[:, 0]
    wanted = -(w[CLASSES] * log_p).sum() / w[CLASSES].sum()
    torch.testing.assert_close(weighted("classification", w.tolist())(LOGITS, CLASSES), wanted)
    torch.testing.assert_close(weighted("classification", [2.0])(LOGITS, CLASSES), F.cross_entropy(LOGITS, CLASSES))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"learner\.options\.weights.*has 2 weights.*3 labels"):
        weighted("multilabel", [1.0, 2.0])
    with pytest.raises(SpecError, match=r"learner\.method.*regression"):
        weighted("regression", [1.0])
    with pytest.raises(SpecError, match=r"learner\.method"):
        weighted("classification", [1.0], task="torch.nn.functional:multi_margin_loss")
    with pytest.raises(SpecError, match="weights"):
        weighted("multilabel", [0.0])
