"""Regression: each example has C real targets, standardized by the train split; outputs are predictions on that scale."""

# N examples, C targets

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.tasks.task import Metric, Task, TaskLoss

__all__ = ["Regression"]


class Regression(Task):
    """C real numbers per example. The metrics are in the targets' original units."""

    primary = "rmse"
    losses: ClassVar[Mapping[str, TaskLoss]] = {"squared_error": F.mse_loss}

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        """The mean of the train split."""
        return train_targets.mean(0).expand(count, outputs)

    def scaled(self, targets: Tensor, train: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean 0 and standard deviation 1 on the train split; a constant target keeps its scale."""
        center, scale = targets[train].mean(0), targets[train].std(0, correction=0)
        constant = scale <= 4 * torch.finfo(targets.dtype).eps * center.abs()
        scale = torch.where(constant, torch.ones_like(scale), scale)
        return ((targets - center) / scale).to(torch.float32), scale


def mse(output_NC: Tensor, y_NC: Tensor, scale_C: Tensor | None) -> float:
    """Mean squared error."""
    return _squares(output_NC, y_NC, scale_C).mean().item()


def rmse(output_NC: Tensor, y_NC: Tensor, scale_C: Tensor | None) -> float:
    """Root of the mean squared error."""
    return _squares(output_NC, y_NC, scale_C).mean().sqrt().item()


def mae(output_NC: Tensor, y_NC: Tensor, scale_C: Tensor | None) -> float:
    """Mean absolute error."""
    return _squares(output_NC, y_NC, scale_C).sqrt().mean().item()


def r2(output_NC: Tensor, y_NC: Tensor, _scale_C: Tensor | None) -> float:
    """Coefficient of determination, averaged over the targets; below 0: worse than predicting the mean."""
    import numpy as np  # the engine needs torch alone

    if len(y_NC) < 2:
        return float("nan")
    y, output = y_NC.double().cpu().numpy(), output_NC.double().cpu().numpy()  # bit for bit scikit-learn's r2_score
    left_C, all_C = ((y - output) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    varied = all_C != 0  # a constant target has 1 if it is predicted exactly, else 0
    return float(np.where(varied, 1.0 - left_C / np.where(varied, all_C, 1.0), left_C == 0).mean())


def _squares(output_NC: Tensor, y_NC: Tensor, scale_C: Tensor | None) -> Tensor:
    """Squared errors in the targets' original units."""
    squares_NC = (output_NC.double() - y_NC.double()) ** 2
    return squares_NC if scale_C is None else squares_NC * scale_C.double() ** 2


Regression.metrics = (
    Metric(name="rmse", goal="minimize", unit="target", meaning="root mean squared error", compute=rmse),
    Metric(name="mse", goal="minimize", unit="target squared", meaning="mean squared error", compute=mse),
    Metric(name="mae", goal="minimize", unit="target", meaning="mean absolute error", compute=mae),
    Metric(name="r2", goal="maximize", unit="", meaning="coefficient of determination", compute=r2),
)
