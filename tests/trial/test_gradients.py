"""The gradient that theta follows, compared with the task loss's: the recorded values are those of the next step."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods import Method, Setting
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import Progress, TrialEnvironment, run

RATE = 0.1


class Decay(Learnable):
    """A learned weight decay: a penalty on the task loss."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.5))

    def penalty(self, theta: Params) -> Tensor:
        return self.strength * torch.stack([value.square().sum() for value in theta.values()]).sum()


class LearnedDecay(Method):
    during = True
    uses = ("meta",)

    def learnable(self, setting: Setting) -> Learnable:
        return Decay()


def trial(method: str, dataset: str, place: Path) -> list[Progress]:
    settings = {
        "task": {"dataset": dataset, "model": {"name": "mlp", "hidden": [8]}, "batch_size": 16},
        "learner": {"method": method, "steps": 4, "optimizer": {"name": "sgd", "lr": RATE}},
        "meta": {"init_steps": 5, "eta_online": 1e-2},
        "eval": {"every": 1},
        "seeds": [1],
    }
    found = list(run(TrialConfig.model_validate(settings), TrialEnvironment(cache=place)))
    return [progress for progress in found if progress.state.step > 0]


def theta(progress: Progress) -> torch.Tensor:
    parts = progress.state.replicates[0].learner.theta.values()
    return torch.cat([value.flatten().double() for value in parts])


def value(progress: Progress, name: str) -> float:
    return progress.records[-1].metrics[name][0]


@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
@pytest.mark.parametrize("method", ["baseline", "offline", "online", f"{__name__}:LearnedDecay"])
def test_the_next_steps_length_is_the_recorded_gradient_norm(method: str, dataset: str, tmp_path: Path) -> None:
    found = trial(method, dataset, tmp_path)
    for now, after in itertools.pairwise(found):
        step = (theta(after) - theta(now)).norm().item()
        assert value(now, names.TRAIN_GRAD_NORM) == pytest.approx(step / RATE, rel=1e-3)


def test_the_task_losss_gradient_is_recorded_next_to_it(tmp_path: Path) -> None:
    for progress in trial("baseline", "digits", tmp_path):
        assert value(progress, names.TRAIN_GRAD_NORM) == value(progress, names.TRAIN_TASK_GRAD_NORM)
        assert value(progress, names.TRAIN_GRAD_COSINE) == pytest.approx(1.0)
    learned = trial("online", "digits", tmp_path)
    assert all(
        value(progress, names.TRAIN_GRAD_NORM) != value(progress, names.TRAIN_TASK_GRAD_NORM) for progress in learned
    )
    assert all(-1.0 <= value(progress, names.TRAIN_GRAD_COSINE) < 0.999 for progress in learned)
