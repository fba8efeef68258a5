"""A user's own base optimizer and schedule: used as they are given, or refused before anything is computed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray.engine import Adam, Optimizer, Sgd
from olfl_ray.errors import SpecError
from olfl_ray.records import names
from olfl_ray.schedules import Schedule
from olfl_ray.spec import Strict, TrialConfig
from olfl_ray.trial import TrialEnvironment, check, run
from olfl_ray.trial.base import meta_optimizer, schedule_of
from olfl_ray.trial.build import code_of


class Halving(Sgd):
    """As SGD with half the learning rate, to compare with it."""

    def __init__(self, *, share: float = 0.5, clip_norm: float | None = None) -> None:
        super().__init__(clip_norm=clip_norm)
        object.__setattr__(self, "share", share)
        if share > 1:
            raise ValueError("share is above 1")

    def update(self, params: Any, grads: Any, state: Any, lr: Any) -> Any:
        return super().update(params, grads, state, lr * self.share)  # type: ignore[attr-defined]

    def gradient_factor(self, lr: Any) -> Any:
        return None


class Bare(Optimizer):
    """Takes no settings."""

    def init(self, params: Any) -> dict[str, torch.Tensor]:
        return {}

    def update(self, params: Any, grads: Any, state: Any, lr: Any) -> Any:
        return {name: value - lr * grads.pop(name) for name, value in params.items()}, {}


class Configured(Bare):
    """Has settings of its own types."""

    class Config(Strict):
        scale: float = 1.0

    def __init__(self, *, scale: float) -> None:
        self.scale = scale

    def update(self, params: Any, grads: Any, state: Any, lr: Any) -> Any:
        return super().update(params, grads, state, lr * self.scale)


class Falling(Schedule):
    class Config(Strict):
        by: float = 0.5

    def factor(self, done: float) -> float:
        return 1.0 - self.config.by * done


class Sized(Bare):
    def __init__(self, *, size: int) -> None:
        self.size = size


def quarter(done: float, factor: float = 0.25) -> float:
    return factor


def endless(done: float) -> float:
    return math.inf if done >= 0.5 else 1.0


def nothing() -> float:
    return 1.0


def config(**learner: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"dataset": "digits", "model": "linear", "batch_size": 16},
            "learner": {"method": "online", "steps": 6, **learner},
            "meta": {"init_steps": 4, "eta_online": 0.01},
            "eval": {"every": 6},
            "seeds": [1],
        }
    )


@pytest.fixture
def environment(tmp_path: Path) -> TrialEnvironment:
    return TrialEnvironment(cache=tmp_path)


def with_meta_optimizer(name: str) -> TrialConfig:
    found = config()
    return found.model_copy(update={"meta": found.meta.model_copy(update={"optimizer": name})})


def own(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": f"{__name__}:{name}", **settings}


@pytest.mark.parametrize("optimizer", [own("Halving", lr=0.2), own("Configured", lr=0.2, scale=0.5)])
def test_it_trains_as_its_equal_does(optimizer: dict[str, Any], environment: TrialEnvironment) -> None:
    *_, given = run(config(optimizer=optimizer), environment)
    *_, wanted = run(config(optimizer={"name": "sgd", "lr": 0.1}), environment)
    for one, other in zip(given.state.replicates, wanted.state.replicates, strict=True):
        for name, value in one.learner.theta.items():
            torch.testing.assert_close(value, other.learner.theta[name], rtol=1e-5, atol=1e-6)


def test_a_schedules_factor_multiplies_the_rate(environment: TrialEnvironment) -> None:
    *_, last = run(config(optimizer={"name": "sgd", "lr": 0.2}, schedule=own("quarter", factor=0.5)), environment)
    assert last.records[-1].metrics[names.TRAIN_LR] == (0.1,)
    assert schedule_of(config(schedule=own("Falling")))(0.5) == 0.75


@pytest.mark.parametrize(
    ("learner", "field", "says"),
    [
        ({"optimizer": own("Halving", shar=1)}, "learner.optimizer.shar", "did you mean 'share'"),
        ({"optimizer": own("Halving", share=2.0)}, "learner.optimizer", "ValueError: share is above 1"),
        ({"optimizer": own("nothing")}, "learner.optimizer.name", "must return a Optimizer"),
        ({"optimizer": own("Bare"), "clip_norm": 1.0}, "learner.clip_norm", "has no parameter 'clip_norm'"),
        (
            {"optimizer": own("Configured", scal=1.0)},
            "learner.optimizer.scal",
            "did you mean 'learner.optimizer.scale'",
        ),
        ({"optimizer": own("Configured", scale="x")}, "learner.optimizer.scale", "valid number"),
        ({"schedule": own("Falling", by="x")}, "learner.schedule.by", "valid number"),
        ({"schedule": own("Falling", bye=0.5)}, "learner.schedule.bye", "did you mean 'learner.schedule.by'"),
        ({"schedule": own("quarter", by=1)}, "learner.schedule.by", "it has factor"),
        ({"schedule": own("nothing")}, "learner.schedule", "must take done"),
        ({"schedule": own("quarter", factor=-1.0)}, "learner.schedule.name", "gives -1.0 after 0.0% of the steps"),
    ],
)
def test_what_does_not_fit_is_refused(
    learner: dict[str, Any], field: str, says: str, environment: TrialEnvironment
) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        check(config(**learner), environment)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "wanted"), [("adam", Adam()), ("adamw", Adam(decoupled=True, weight_decay=0.01)), ("sgd", Sgd())]
)
def test_the_meta_optimizer_has_its_default_settings(name: str, wanted: Optimizer) -> None:
    assert meta_optimizer(with_meta_optimizer(name)) == wanted


def test_a_users_own_is_a_meta_optimizer_if_it_needs_no_settings() -> None:
    mine = with_meta_optimizer(f"{__name__}:Bare")
    assert isinstance(meta_optimizer(mine), Bare)
    assert list(code_of(mine, "classification")) == [__name__]
    with pytest.raises(SpecError, match=r"^meta\.optimizer\.size: .*needs this setting"):
        meta_optimizer(with_meta_optimizer(f"{__name__}:Sized"))


def test_a_factor_that_is_not_finite_ends_the_trial_with_the_step(environment: TrialEnvironment) -> None:
    with pytest.raises(SpecError, match=r"gives inf after 50\.0% of the steps"):
        list(run(config(schedule=own("endless")), environment))


def test_their_code_is_part_of_what_the_study_began_with() -> None:
    found = code_of(config(optimizer=own("Halving"), schedule=own("quarter")), "classification")
    assert list(found) == [__name__]
