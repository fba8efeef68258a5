"""What the paper says of learned losses, measured: convergence, implicit learning rates, implicit label smoothing, time."""

# P grid points

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from olfl_ray.analysis import records_table
from olfl_ray.ledger import TrialState
from olfl_ray.losses import LearnedLoss
from olfl_ray.records import names
from olfl_ray.storage import Storage

__all__ = ["Curves", "along", "curves_of", "effective_rate", "smoothing", "step_ms", "steps_to_reach"]

Curves = Mapping[str, Mapping[int, float]]
"""Metric -> base step -> value."""


def curves_of(storage: Storage, trial: TrialState) -> Curves:
    """What a trial recorded, the mean over its replicates."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in records_table(storage, trial).to_pylist():
        found[row["metric"]][row["step"]].append(row["value"])
    return {
        metric: {step: math.fsum(values) / len(values) for step, values in sorted(by_step.items())}
        for metric, by_step in found.items()
    }


def steps_to_reach(curves: Curves, level: float, metric: str) -> int | None:
    """Base steps until a metric is first at most `level`; None: never."""
    errors = curves.get(metric, {})
    return next((step for step, error in errors.items() if error <= level), None)


def effective_rate(curves: Curves) -> dict[int, float]:
    """lr |grad of what trains theta| / |grad of the task loss|: with SGD, the rate at which the task loss steps as far."""
    rates = curves.get(names.TRAIN_LR, {})
    own, task = curves.get(names.TRAIN_GRAD_NORM, {}), curves.get(names.TRAIN_TASK_GRAD_NORM, {})
    return {step: rate * own[step] / task[step] for step, rate in rates.items() if task.get(step, 0.0) > 0}


def step_ms(trials: Sequence[Curves]) -> float | None:
    """Milliseconds of a base step, evaluations included: the median over all records; None where there are none."""
    rates = [rate for curves in trials for rate in curves.get(names.PERF_STEPS_PER_SECOND, {}).values()]
    return 1000 / median(rates) if rates else None


@torch.no_grad()
def along(loss: LearnedLoss, classes: int, p_P: Tensor) -> Tensor:
    """A classifier's loss where the true class has probability p and the others share the rest."""
    rest_P = (1 - p_P) / (classes - 1)
    own_P, others_P = loss.network(p_P, torch.ones_like(p_P)), loss.network(rest_P, torch.zeros_like(p_P))
    value_P: Tensor = own_P + (classes - 1) * others_P
    return value_P / classes if loss.reduction == "mean" else value_P


def smoothing(loss: LearnedLoss, classes: int) -> float:
    """Label smoothing with the same best probability p* of the true class: (1 - p*) C / (C - 1); 0 where p* is 1.

    Cross-entropy with smoothing e is least at p* = 1 - e (C - 1) / C.
    """
    # In float64, even in the logit from chance to 1e-5 below 1: in float32, losses of neighbours near 1 are equal.
    p_P = torch.sigmoid(torch.linspace(-math.log(classes - 1), 11.5, 4001, dtype=torch.float64))
    best = int(along(copy.deepcopy(loss).double(), classes, p_P).argmin())
    return 0.0 if best == len(p_P) - 1 else (1 - p_P[best].item()) * classes / (classes - 1)
