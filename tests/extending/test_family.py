"""The example of a learned initialisation: few-shot regression on a family of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from olfl_ray.learnable import Learnable
from olfl_ray.plugins import load_builder
from olfl_ray.spec import TrialConfig
from olfl_ray.testing import LearnableContract, MethodContract
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes

METHOD = "mine.initialisation:LearnedInitialisation"


class TestInitialisation(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return load_builder("mine.initialisation:Initialisation", "learner.method")(theta)  # type: ignore[no-any-return]


class TestLearnedInitialisation(MethodContract):
    name = METHOD


def trial(method: str, **settings: Any) -> TrialConfig:
    base = {
        "task": {
            "dataset": "mine.initialisation:sinusoids",
            "model": {"name": "mlp", "hidden": [40, 40]},
            "split": {"test": 0.25, "meta": 0.33, "selection": 0.33},
        },
        "learner": {"method": method, "steps": 10, "optimizer": {"name": "sgd", "lr": 0.01}},
        "eval": {"every": 100, "report": "last"},
        "metric": "selection/mse",
        "confirming": True,
    }
    return TrialConfig.model_validate(base | settings)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_few_steps_from_it_beat_the_same_steps_from_random_weights(tmp_path: Path) -> None:
    place, errors = TrialEnvironment(cache=tmp_path), {}
    for method in ("baseline", METHOD):
        meta = {} if method == "baseline" else {"meta": {"init_steps": 300, "eta_init": 0.003}}
        *_, last = run(trial(method, seeds=[1, 2, 3, 4, 5, 6], **meta), place)
        errors[method] = sum(last.report["test/mse"]) / 6
    assert errors[METHOD] < 0.8 * errors["baseline"]


def test_it_resumes_bit_for_bit_within_and_after_algorithm_1(tmp_path: Path) -> None:
    config = trial(METHOD, seeds=[1], eval={"every": 4, "report": "last"}, meta={"init_steps": 10, "inner_steps": 2})
    whole = list(run(config, TrialEnvironment(cache=tmp_path)))
    assert whole[-1].outcome == "finished"
    for cut in range(len(whole) - 1):
        rest = list(run(config, TrialEnvironment(cache=tmp_path), state_from_bytes(state_to_bytes(whole[cut].state))))
        assert state_to_bytes(rest[-1].state) == state_to_bytes(whole[-1].state)
        assert rest[-1].report == whole[-1].report
    kept = whole[-1].files["learnable.safetensors"]
    assert kept == next(
        one.files["learnable.safetensors"] for one in whole if one.files
    )  # phi is frozen after Algorithm 1
