"""Classification: each example has one class out of C; outputs are logits."""

# N examples, C classes, K bins

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.tasks.task import Metric, Task, TaskLoss

__all__ = ["Classification"]

BINS = 15
"""Bins of confidence of the calibration error, as in Guo et al. 2017."""


class Classification(Task):
    """One class an example. A learned loss sees softmax probabilities and one-hot targets."""

    primary = "error"
    losses: ClassVar[Mapping[str, TaskLoss]] = {"cross_entropy": F.cross_entropy}
    classes = True

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Log shares of the classes: the class predicted is the largest one, with its share as confidence."""
        shares_C = train_targets.bincount(minlength=outputs).double() / len(train_targets)
        return shares_C.clamp_min(torch.finfo(torch.float32).tiny).log().float().expand(count, -1)

    def outputs(self, targets: Tensor) -> int:
        """C, the number of classes."""
        return int(targets.max()) + 1

    def strata(self, targets: Tensor) -> Tensor:
        """The classes."""
        return targets

    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        """Classes are not scaled."""
        return targets, None

    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax probabilities, one-hot targets; more dimensions before the last count as batch."""
        return torch.softmax(outputs, dim=-1), F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        """The softmax's Jacobian, which is symmetric, times a vector."""
        weighted = predictions * vector
        return weighted.addcmul_(predictions, weighted.sum(-1, keepdim=True), value=-1)

    def examples(self, count: int, outputs: int) -> Tensor:
        """Classes by turns."""
        return torch.arange(count) % outputs

    def grid(self, points: int) -> tuple[Tensor, Tensor]:
        """Targets 0 and 1 over probabilities."""
        return torch.tensor([0.0, 1.0]), torch.linspace(0.01, 0.99, points)

    def drawn(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """-y log p, one output's part of the cross-entropy."""
        return -targets * predictions.log()


def error(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Share of examples whose largest output is not that of their class."""
    return (logits_NC.argmax(-1) != y_N).double().mean().item()


def accuracy(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Share of examples whose largest output is that of their class."""
    return 1.0 - error(logits_NC, y_N)


def balanced_error(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Error of each class that the split holds, averaged over these classes with equal weights."""
    from sklearn.metrics import balanced_accuracy_score  # two seconds to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is predicted and absent has no recall, which is left out
        return 1.0 - float(balanced_accuracy_score(*_classes(logits_NC, y_N)))


def macro_f1(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """F1 score of each class that the split or the predictions hold, averaged with equal weights."""
    from sklearn.metrics import f1_score

    return float(f1_score(*_classes(logits_NC, y_N), average="macro", zero_division=0))


def nll(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Mean negative log-likelihood of the classes."""
    return F.cross_entropy(logits_NC.double(), y_N).item()


def ece(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Expected calibration error: the gap between confidence and accuracy, averaged over bins of confidence by size."""
    confidence_N, predicted_N = logits_NC.double().softmax(-1).max(-1)
    gap_N = (predicted_N == y_N).double() - confidence_N
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gap_K = torch.zeros(BINS, dtype=torch.float64, device=gap_N.device).index_add_(0, bin_N, gap_N)
    return (gap_K.abs().sum() / len(y_N)).item()


def _classes(logits_NC: Tensor, y_N: Tensor) -> tuple[object, object]:
    return y_N.cpu().numpy(), logits_NC.argmax(-1).cpu().numpy()


Classification.metrics = (
    Metric(name="error", goal="minimize", unit="share", meaning="error rate", compute=error),
    Metric(name="accuracy", goal="maximize", unit="share", meaning="1 - error", compute=accuracy),
    Metric(
        name="balanced_error",
        goal="minimize",
        unit="share",
        meaning="mean of the classes' errors",
        compute=balanced_error,
    ),
    Metric(name="macro_f1", goal="maximize", unit="", meaning="mean of the classes' F1 scores", compute=macro_f1),
    Metric(name="nll", goal="minimize", unit="nats", meaning="mean negative log-likelihood", compute=nll),
    Metric(name="ece", goal="minimize", unit="share", meaning="expected calibration error, 15 bins", compute=ece),
)
