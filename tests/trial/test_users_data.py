"""A trial on a user's own data: ids are looked up, lazy layers are trained, classes are numbered from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment, check, run


def tokens() -> tuple[np.ndarray, list[str]]:
    """The first of six tokens determines the class."""
    ids = np.random.default_rng(0).integers(0, 30, (240, 6))
    return ids, ["high" if first >= 15 else "low" for first in ids[:, 0]]


def embedding(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.LazyLinear(outputs))


@pytest.mark.parametrize("method", ["baseline", "online"])
def test_ids_are_looked_up_and_a_lazy_layer_is_trained(method: str, tmp_path: Path) -> None:
    config = TrialConfig.model_validate(
        {
            "task": {"dataset": f"{__name__}:tokens", "model": f"{__name__}:embedding", "batch_size": 32},
            "learner": {"method": method, "steps": 60, "optimizer": {"name": "adam", "lr": 0.05}},
            "meta": {"init_steps": 20},
            "eval": {"every": 30},
        }
    )
    place = TrialEnvironment(cache=tmp_path)
    assert check(config, place).task == "classification"
    last = list(run(config, place))[-1]
    assert last.outcome == "finished"
    assert set(last.state.replicates[0].learner.theta) == {"0.weight", "2.weight", "2.bias"}
    assert last.state.replicates[0].learner.theta["2.weight"].shape == torch.Size([2, 48])
    assert method == "online" or last.report["selection/error"][0] < 0.3
