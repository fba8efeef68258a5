"""Classification: each example has one class out of C; outputs are logits."""

# N examples, C classes, K bins

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.tasks.task import Metric, Task, TaskLoss

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Classification"]

BINS = 15
"""Number of confidence bins of the calibration error, as in Guo et al. 2017."""


class Classification(Task):
    """One class per example. A learned loss receives softmax probabilities and one-hot targets."""

    primary = "error"
    losses: ClassVar[Mapping[str, TaskLoss]] = {"cross_entropy": F.cross_entropy}
    classes = True

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Log frequencies of the classes: the largest class is predicted, with its frequency as confidence."""
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
        """Softmax probabilities and one-hot targets; all dimensions but the last are batch dimensions."""
        return torch.softmax(outputs, dim=-1), F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        """The softmax's Jacobian, which is symmetric, times a vector."""
        weighted = predictions * vector
        return weighted.addcmul_(predictions, weighted.sum(-1, keepdim=True), value=-1)

    def examples(self, count: int, outputs: int) -> Tensor:
        """Classes in turn."""
        return torch.arange(count) % outputs

    def grid(self, points: int) -> tuple[Tensor, Tensor]:
        """Targets 0 and 1 over probabilities."""
        return torch.tensor([0.0, 1.0]), torch.linspace(0.01, 0.99, points)

    def drawn(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """-y log p, the contribution of one output to the cross-entropy."""
        return -targets * predictions.log()


def error(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Share of examples whose largest output is not that of their class."""
    return (logits_NC.argmax(-1) != y_N).double().mean().item()


def accuracy(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Share of examples whose largest output is that of their class."""
    return 1.0 - error(logits_NC, y_N)


def balanced_error(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Error of each class in the split, averaged over these classes with equal weights."""
    right_C, true_C, _ = _counts(logits_NC, y_N)
    held = true_C > 0
    return 1.0 - float((right_C[held] / true_C[held]).mean())


def macro_f1(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """F1 score of each class in the split or the predictions, averaged with equal weights."""
    right_C, true_C, predicted_C = _counts(logits_NC, y_N)
    both_C = true_C + predicted_C
    held = both_C > 0
    return float((2.0 * right_C[held] / both_C[held]).mean())


def nll(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Mean negative log-likelihood of the classes."""
    return F.cross_entropy(logits_NC.double(), y_N).item()


def ece(logits_NC: Tensor, y_N: Tensor, _scale: Tensor | None = None) -> float:
    """Expected calibration error: |confidence - accuracy| per confidence bin, averaged weighted by bin size."""
    confidence_N, predicted_N = logits_NC.double().softmax(-1).max(-1)
    gap_N = (predicted_N == y_N).double() - confidence_N
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gap_K = torch.zeros(BINS, dtype=torch.float64, device=gap_N.device).index_add_(0, bin_N, gap_N)
    return (gap_K.abs().sum() / len(y_N)).item()


def _counts(logits_NC: Tensor, y_N: Tensor) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Number of examples of each class that are predicted correctly, that exist, and that are predicted.

    scikit-learn has the same metrics, bit for bit, but its import takes a second and 100 MB in each worker.
    """
    y_N, predicted_N = y_N.cpu(), logits_NC.argmax(-1).cpu()
    right_N = y_N[y_N == predicted_N]
    return [part.bincount(minlength=logits_NC.shape[-1]).numpy() for part in (right_N, y_N, predicted_N)]


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
