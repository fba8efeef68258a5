"""Multi-label classification: each example has any number of C labels; outputs are logits, one for each label."""

# N examples, C labels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.spec import Strict
from olfl_ray.tasks.label_metrics import best_thresholds, f1_of, hamming, lrap, macro_f1, micro_f1, subset_accuracy
from olfl_ray.tasks.stratified import stratified
from olfl_ray.tasks.task import Metric, Task, TaskLoss

__all__ = ["Multilabel"]

RAREST = 1e-6
"""Least share of a label for the best constant prediction, whose log odds must be finite."""
MOST_LABELS = 100
"""Labels whose F1 scores are measured one by one, at most."""


class Multilabel(Task):
    """Zero or one for each label. A learned loss receives each label's probability, its sigmoid, and its target."""

    class Config(Strict):
        """Its settings, in `task.options`."""

        thresholds: Literal["fixed", "tuned"] = "fixed"
        """Where a label is predicted: fixed: its probability is above 0.5 | tuned: above the label's threshold with the highest F1
        score on the validation split, at each evaluation. F1 scores, hamming and subset_accuracy depend on them."""

    primary = "macro_f1"
    losses: ClassVar[Mapping[str, TaskLoss]] = {"binary_cross_entropy": F.binary_cross_entropy_with_logits}
    labels = True
    metrics = (
        Metric(
            name="macro_f1",
            goal="maximize",
            unit="",
            meaning="mean of the labels' F1 scores",
            compute=macro_f1,
            decides=True,
        ),
        Metric(
            name="micro_f1",
            goal="maximize",
            unit="",
            meaning="F1 score of all labels of all examples together",
            compute=micro_f1,
            decides=True,
        ),
        Metric(
            name="hamming",
            goal="minimize",
            unit="share",
            meaning="share of wrong labels (Hamming loss)",
            compute=hamming,
            decides=True,
        ),
        Metric(
            name="subset_accuracy",
            goal="maximize",
            unit="share",
            meaning="share of examples with every label right",
            compute=subset_accuracy,
            decides=True,
        ),
        Metric(
            name="lrap",
            goal="maximize",
            unit="",
            meaning="label-ranking average precision",
            compute=lrap,
        ),
    )

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Log odds of each label's share: a label is predicted if most examples have it."""
        shares_C = train_targets.double().mean(0)
        return shares_C.logit(eps=RAREST).float().expand(count, outputs)

    def checked(self, targets: Tensor) -> Tensor:
        """Zeros and ones; soft labels are refused, since F1 scores and stratified splits are of sets of labels."""
        other = (targets != 0) & (targets != 1)
        if bool(other.any()):
            row, label = other.nonzero()[0].tolist()
            raise ValueError(
                f"targets of several labels must be 0 or 1, but {int(other.sum())} of {targets.numel()} are not, the first in "
                f"row {row}, label {label}: {targets[row, label].item():g}; binarise them (y > 0.5), or give kind: regression"
            )
        if len(targets) > 1 and bool((targets == targets[:1]).all()):
            raise ValueError("every example has the same labels, so nothing can be learned; correct the targets")
        return targets

    def recognizes(self, targets: Tensor) -> bool:
        """Whether several columns hold only zeros and ones."""
        return targets.dim() == 2 and targets.shape[1] > 1 and bool(((targets == 0) | (targets == 1)).all())

    @property
    def tuned(self) -> bool:
        """Whether its setting says so."""
        return self.config is not None and self.config.thresholds == "tuned"

    def thresholds(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """By label the threshold with the highest F1 score; 0, that is probability 0.5, where the label does not occur."""
        return best_thresholds(outputs, targets) if self.tuned else None

    def parts(self, targets: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """By iterative stratification: each part gets its fraction of every label's examples."""
        return stratified(targets, fractions, generator)

    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        """Labels are not scaled."""
        return targets.to(torch.float32), None

    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each label's probability, and its target."""
        return outputs.sigmoid(), targets.to(outputs.dtype)

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        """The sigmoid's derivative, label by label, times a vector."""
        return predictions * (1 - predictions) * vector

    def examples(self, count: int, outputs: int) -> Tensor:
        """Label k in every (k + 2)-th example."""
        return (torch.arange(count)[:, None] % (torch.arange(outputs) + 2) == 0).float()

    def grid(self, points: int) -> tuple[Tensor, Tensor]:
        """Targets 0 and 1 over probabilities."""
        return torch.tensor([0.0, 1.0]), torch.linspace(0.01, 0.99, points)

    def drawn(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """-y log p - (1 - y) log(1 - p), the contribution of one label to the cross-entropy."""
        return F.binary_cross_entropy(predictions, targets, reduction="none")

    def metrics_of_outputs(self, names: Sequence[str]) -> Sequence[Metric]:
        """F1 of each label, as `f1_LABEL`, unless there are more than 100 labels."""
        if len(names) > MOST_LABELS:
            return ()
        return [
            Metric(
                name=f"f1_{identifier}",
                goal="maximize",
                unit="",
                meaning=f"F1 score of the label {name}",
                compute=f1_of(label),
                decides=True,
            )
            for label, (name, identifier) in enumerate(zip(names, identifiers(names), strict=True))
        ]


def identifiers(names: Sequence[str]) -> list[str]:
    """Labels' names as parts of metrics' names, with `_` for what is no letter or digit; their numbers where two would be equal."""
    plain = ["".join(c if f"_{c}".isidentifier() else "_" for c in name) for name in names]
    return plain if all(plain) and len(set(plain)) == len(plain) else list(map(str, range(len(plain))))
