"""Classification: each example has one class out of C; outputs are logits."""

# N examples, C classes, K bins

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.tasks.task import Metric, Task

__all__ = ["Classification"]

BINS = 15
"""Bins of confidence of the calibration error, as in Guo et al. 2017."""


class Classification(Task):
    """One class an example."""

    primary = "error"

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """Log shares of the classes: the class predicted is the largest one, with its share as confidence."""
        shares_C = train_targets.bincount(minlength=outputs).double() / len(train_targets)
        return shares_C.clamp_min(torch.finfo(torch.float32).tiny).log().float().expand(count, -1)


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
