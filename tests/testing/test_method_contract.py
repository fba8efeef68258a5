"""Every built-in method fulfills the contract, and the contract rejects methods that do not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import TaskLoss
from olfl_ray.methods import METHODS, Method, Setting
from olfl_ray.tasks import Head
from olfl_ray.testing import MethodContract


class BuiltIn(MethodContract):
    pass


class TestBaseline(BuiltIn):
    name = "baseline"


class TestOffline(BuiltIn):
    name = "offline"


class TestOnline(BuiltIn):
    name = "online"


class TestOnlineLearningRate(BuiltIn):
    name = "online_lr"


class TestMargin(BuiltIn):
    name = "margin"


class TestOnlineMargin(BuiltIn):
    name = "online_margin"


class TestLabelBlocks(BuiltIn):
    name = "label_blocks"
    options: Mapping[str, Any] = {"blocks": [[2], [0, 1]]}


class TestLabelSmoothing(BuiltIn):
    name = "label_smoothing"


class TestFocal(BuiltIn):
    name = "focal"


class TestPoly1(BuiltIn):
    name = "poly1"


class TestWeighted(BuiltIn):
    name = "weighted"


HEADS = (Head(name="color", kind="classification", outputs=3), Head(name="mass", kind="regression", outputs=1))


class TestUncertainty(BuiltIn):
    name = "uncertainty"
    heads = HEADS


class TestLearnedWeights(BuiltIn):
    name = "learned_weights"
    heads = HEADS


class TestMetaSparsity(BuiltIn):
    name = "meta_sparsity"


class TestGroupPenalty(BuiltIn):
    name = "group_penalty"


class TestFineTune(BuiltIn):
    name = "fine_tune"

    @pytest.fixture(autouse=True)
    def exported(self, tmp_path: Path) -> None:
        content = save({"module.weight": torch.ones(3, 4)})
        (tmp_path / "trained.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.options = {"model": str(tmp_path / "trained.safetensors"), "digest": digest, "parts": ["weight"]}


def test_each_built_in_method_is_tested() -> None:
    assert sorted(kind.name for kind in BuiltIn.__subclasses__()) == METHODS.names()


class Scalar(Learnable):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(value))


class Good(Method):
    during = True
    uses = ("meta.optimizer", "meta.eta_online", "meta.every", "meta.batch", "meta.clip_norm")

    def learnable(self, setting: Setting) -> Learnable:
        return Scalar(0.5)


class Misspelt(Good):
    uses = (*Good.uses, "meta.eta_onlin")


class OfEveryMethod(Good):
    uses = (*Good.uses, "learner.optimizer")


class Reading(Good):
    def learnable(self, setting: Setting) -> Learnable:
        return Scalar(setting.config.meta.eta_init)


class Unseeded(Good):
    def learnable(self, setting: Setting) -> Learnable:
        return Scalar(torch.rand(()).item())


class Never(Good):
    during = False


class Unlisted(Good):
    uses = ("meta.optimizer",)


class NoLearnable(Good):
    def learnable(self, setting: Setting) -> Learnable:
        return nn.Linear(2, 2)  # type: ignore[return-value]


class OnTheTest(Good):
    trained_on = ("train", "test")  # type: ignore[assignment]


class PerExample(Good):
    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        return lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none")


class Backwards(Good):
    def phis(self, setting: Setting) -> Sequence[tuple[float, Params]]:
        return [(0.5, {"alpha": torch.zeros(())}), (0.0, {"alpha": torch.zeros(())})]


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (Misspelt, "it_lists_settings_that_exist"),
        (OfEveryMethod, "it_lists_settings_that_exist"),
        (Reading, "initial_phi_depends_only_on_listed_settings"),
        (Unseeded, "initial_phi_depends_only_on_the_seed"),
        (Never, "it_learns_when_it_declares_to"),
        (Unlisted, "it_learns_when_it_declares_to"),
        (NoLearnable, "it_returns_a_learnable"),
        (OnTheTest, "theta_is_trained_on_train_or_meta"),
        (PerExample, "its_base_loss_is_a_scalar_with_a_gradient"),
        (Backwards, "its_phis_are_those_of_what_it_learns_in_order"),
    ],
)
def test_method_that_breaks_a_rule_is_detected(broken: type[Method], claim: str) -> None:
    for kind in (Good, broken):
        suite = MethodContract()
        suite.name = f"{__name__}:{kind.__name__}"
        if kind is Good:
            getattr(suite, f"test_{claim}")()
        else:
            with pytest.raises(AssertionError):
                getattr(suite, f"test_{claim}")()
