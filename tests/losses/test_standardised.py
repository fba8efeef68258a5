"""A task loss for probabilities never meets standardised targets; one for a regression passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.losses import check_standardised, task_loss
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment, check

X = np.random.default_rng(0).normal(size=(60, 3))
Y = {"column of labels": (X[:, :1] > 0).astype(float), "shares": 1 / (1 + np.exp(-X[:, :2]))}


def column() -> tuple[np.ndarray, np.ndarray]:
    return X, Y["column of labels"]


def shares() -> tuple[np.ndarray, np.ndarray]:
    return X, Y["shares"]


def by_hand(f: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(f).clamp(1e-7, 1 - 1e-7)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def of_probabilities(f: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(torch.sigmoid(f), y)


def focal(f: Tensor, y: Tensor) -> Tensor:
    bce = F.binary_cross_entropy_with_logits(f, y, reduction="none")
    return ((1 - torch.exp(-bce.abs())) ** 2 * bce).mean()


def gaussian(f: Tensor, y: Tensor) -> Tensor:
    """Negative where it is small."""
    return ((f - y) ** 2 - 10).mean()


def aligned(f: Tensor, y: Tensor) -> Tensor:
    return -(torch.tanh(f) * y).mean()


def of_two_columns(f: Tensor, y: Tensor) -> Tensor:
    return ((f[:, 0] - y[:, 1]) ** 2).mean()


PROBABILITIES = (
    "torch.nn.functional:cross_entropy",  # 0 for one output
    "torch.nn.functional:binary_cross_entropy_with_logits",
    "torch.nn.functional:poisson_nll_loss",
    *(f"{__name__}:{name}" for name in ("by_hand", "of_probabilities", "focal")),
)
REGRESSIONS = (
    *(f"torch.nn.functional:{name}" for name in ("mse_loss", "l1_loss", "huber_loss")),
    *(f"{__name__}:{name}" for name in ("gaussian", "aligned", "of_two_columns")),
)


@pytest.mark.parametrize(
    ("name", "data"), [*((name, "column") for name in PROBABILITIES[1:]), *((name, "shares") for name in PROBABILITIES)]
)
def test_a_loss_of_probabilities_is_refused_for_float_targets(name: str, data: str, tmp_path: Path) -> None:
    config = TrialConfig.model_validate(
        {"task": {"dataset": f"{__name__}:{data}", "model": "linear", "loss": name}, "learner": {"method": "baseline"}}
    )
    with pytest.raises(SpecError, match="standardised") as caught:
        check(config, TrialEnvironment(cache=tmp_path))
    assert caught.value.field == "task.loss"


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressions_loss_is_taken(name: str, outputs: int) -> None:
    check_standardised(task_loss(name, "regression"), name, outputs, "cpu")
