"""Metrics of sets of labels: F1 scores, Hamming loss, subset accuracy, label-ranking average precision.

They equal scikit-learn's, with `zero_division=0`: a label without true and without predicted examples has F1 0, whatever is
predicted for it. scikit-learn itself would take 5 to 100 ms per metric and evaluation, and 150 MB in each worker.
"""

# N examples, C labels

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["best_thresholds", "f1_of", "hamming", "lrap", "macro_f1", "micro_f1", "subset_accuracy"]


def macro_f1(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    """F1 score of each label, averaged with equal weights."""
    return _f1(*_counts(logits_NC, y_NC)).mean().item()


def micro_f1(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    """F1 score of all labels of all examples together."""
    right_C, both_C = _counts(logits_NC, y_NC)
    return _f1(right_C.sum(), both_C.sum()).item()


def f1_of(label: int) -> Callable[[Tensor, Tensor, Tensor | None], float]:
    """The F1 score of one label."""

    def f1(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
        return _f1(*_counts(logits_NC[:, label], y_NC[:, label])).item()

    return f1


def hamming(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    """Share of wrong labels over all examples and labels."""
    return ((logits_NC > 0) != (y_NC > 0)).double().mean().item()


def subset_accuracy(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    """Share of examples whose labels are all right."""
    return ((logits_NC > 0) == (y_NC > 0)).all(-1).double().mean().item()


def lrap(logits_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    """For each true label the share of true labels among those ranked at least as high, averaged by example, then over examples.

    An example with no label, or with every label, counts 1.
    """
    true_NC = y_NC > 0
    count_N = true_NC.sum(-1)
    score_N = torch.zeros(len(y_NC), dtype=torch.float64, device=y_NC.device)
    for label in range(y_NC.shape[-1]):
        as_high_NC = logits_NC >= logits_NC[:, label : label + 1]
        score_N += true_NC[:, label] * (as_high_NC & true_NC).sum(-1) / as_high_NC.sum(-1).double()
    plain_N = (count_N == 0) | (count_N == y_NC.shape[-1])
    return torch.where(plain_N, 1.0, score_N / count_N.clamp_min(1)).mean().item()


def best_thresholds(logits_NC: Tensor, y_NC: Tensor) -> Tensor:
    """Of each label the threshold (C,) with the highest F1 score, half-way between two logits; of several the highest.

    It is below all logits where predicting the label for every example is best, and 0 where no example has the label.
    """
    ranked_NC, order_NC = logits_NC.double().sort(0, descending=True)
    right_NC = (y_NC > 0).gather(0, order_NC).cumsum(0)
    predicted_N1 = torch.arange(1, len(y_NC) + 1, device=y_NC.device)[:, None]
    true_C = right_NC[-1]
    lower_NC = torch.cat([ranked_NC[1:], ranked_NC[-1:] - 2])
    f1_NC = torch.where(lower_NC < ranked_NC, _f1(right_NC, predicted_N1 + true_C), -1.0)  # not between equal logits
    best_1C = f1_NC.argmax(0, keepdim=True)
    middle_C = (ranked_NC.gather(0, best_1C) + lower_NC.gather(0, best_1C))[0] / 2
    return torch.where(true_C > 0, middle_C, 0.0)


def _counts(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of each label the examples that are predicted correctly, and the number of true ones and of predicted ones together."""
    predicted, true = logits > 0, y > 0
    return (predicted & true).sum(0), predicted.sum(0) + true.sum(0)


def _f1(right: Tensor, both: Tensor) -> Tensor:
    return 2.0 * right.double() / both.clamp_min(1)
