"""A learned loss in files: of the present format, and of format 1, where every loss had the settings of mlp."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from olfl_ray.errors import DataError
from olfl_ray.losses import LearnedLoss, build_loss, loss_from_bytes
from olfl_ray.spec import LearnedLossSpec

OF_MLP: dict[str, Any] = {
    "hidden": [40, 40],
    "activation": {"name": "smooth_leaky_relu", "beta": 10.0, "gamma": 0.01},
    "output": "none",
    "bias": False,
    "init": "xavier_uniform",
}
SHARED: dict[str, Any] = {"reduction": "sum", "from": None}


class Power(nn.Module):
    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree, self.weight = degree, nn.Parameter(torch.tensor(0.5))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * (output - target) ** self.degree


OWN = f"{__name__}:Power"
PRESENT: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", **OF_MLP, "hidden": [3], "activation": {"name": "tanh"}, "bias": True},
    "ml3": {"name": "ml3", "init": "xavier_uniform"},
    OWN: {"name": OWN, "degree": 4},
}
FIRST: dict[str, dict[str, Any]] = {
    "mlp": {**PRESENT["mlp"], "replay": False, "options": {}},
    "ml3": {"name": "ml3", **OF_MLP, "replay": False, "options": {}},
    OWN: {"name": OWN, **OF_MLP, "options": {"degree": 4}},
}


def built(name: str) -> LearnedLoss:
    return build_loss(LearnedLossSpec.model_validate({**PRESENT[name], **SHARED}), "regression", seed=3)


def read(loss: LearnedLoss, settings: dict[str, Any]) -> LearnedLoss:
    return loss_from_bytes(save(dict(loss.state_dict())), json.dumps(settings).encode(), "a file", [OWN])


@pytest.mark.parametrize("name", PRESENT)
def test_a_file_of_format_1_is_read(name: str) -> None:
    loss, at, targets = built(name), torch.randn(4, 2), torch.randn(4, 2)
    for form in ({"format": 1}, {}):
        found = read(loss, {**form, "kind": "regression", "loss": {**FIRST[name], **SHARED}})
        assert torch.equal(found(at, targets), loss(at, targets))
        assert found.settings == loss.settings


@pytest.mark.parametrize("name", PRESENT)
def test_a_file_holds_the_settings_of_its_loss_and_no_others(name: str) -> None:
    settings = json.loads(built(name).files()["learned_loss.json"])
    assert settings == {"format": 2, "kind": "regression", "loss": {**PRESENT[name], **SHARED}}
    assert read(built(name), settings).settings == built(name).settings


def test_a_setting_that_the_loss_does_not_have_is_named() -> None:
    with pytest.raises(DataError, match=r"loss\.hidden"):
        read(built("ml3"), {"format": 2, "kind": "regression", "loss": {**PRESENT["ml3"], "hidden": [3]}})
    with pytest.raises(DataError, match=r"loss\.degre\b"):
        read(built(OWN), {"format": 1, "kind": "regression", "loss": {"name": OWN, "options": {"degre": 4}}})
    with pytest.raises(DataError, match="more weights than there are"):
        read(built("mlp"), {"format": 2, "kind": "regression", "loss": {"name": "mlp", "hidden": [90_000, 90_000]}})
