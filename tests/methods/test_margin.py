"""Training on the margin loss: margins are trained with theta, fixed, or learned online; all resume bit for bit."""

from __future__ import annotations

from typing import Any

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.losses import LossFiles, task_loss
from olfl_ray.methods import Setting, method_of
from olfl_ray.spec import TrialConfig
from olfl_ray.tasks import task_of
from olfl_ray.trial import Progress, TrialEnvironment, run, state_from_bytes, state_to_bytes

LABELS = 10


def config(method: str, **options: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"dataset": "digits", "model": {"name": "dosa", "hidden": [8], "steps": 3}, "batch_size": 16},
            "learner": {
                "method": method,
                "options": options,
                "steps": 6,
                "optimizer": {"name": "adam", "lr": 0.01},
                "deterministic": True,
            },
            "meta": {"eta_online": 0.01},
            "eval": {"every": 2, "report": "last"},
            "seeds": [1],
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def margins_of(found: list[Progress]) -> list[dict[str, float]]:
    """The recorded margins of each evaluation, by label."""
    records = [record for progress in found for record in progress.records]
    kept = [
        {name: value[0] for name, value in record.metrics.items() if name.startswith("margin/")} for record in records
    ]
    return [one for one in kept if one]


@pytest.mark.parametrize(
    ("method", "options", "moves"),
    [
        ("margin", {}, True),
        ("margin", {"importance": "detached", "lr_factor": 0.5}, True),
        ("margin", {"importance": "none", "margins": "fixed"}, False),
        ("online_margin", {}, True),
    ],
)
def test_margins_are_recorded_and_a_trial_resumes_bit_for_bit(
    method: str, options: dict[str, Any], moves: bool, place: TrialEnvironment
) -> None:
    settings = config(method, **options)
    whole = list(run(settings, place))
    assert whole[-1].outcome == "finished"
    recorded = margins_of(whole)
    if moves:
        assert all(len(margins) == LABELS for margins in recorded)
        assert recorded[-1] != recorded[0]
        assert min(recorded[-1].values()) > 0.5
    else:
        assert not recorded
    rest = list(run(settings, place, state_from_bytes(state_to_bytes(whole[-2].state))))
    assert state_to_bytes(rest[-1].state) == state_to_bytes(whole[-1].state)
    assert margins_of(rest) == recorded[-1:] if moves else not margins_of(rest)


def test_a_slower_rate_moves_margins_less(place: TrialEnvironment) -> None:
    moved = []
    for factor in (1.0, 0.1):
        last = margins_of(list(run(config("margin", lr_factor=factor), place)))[-1]
        moved.append(sum(abs(value - 1.0) for value in last.values()))
    assert 0 < moved[1] < 0.5 * moved[0]


def test_margins_are_part_of_theta(place: TrialEnvironment) -> None:
    """rho is part of theta, nothing is meta-learned, and the task's metrics are evaluated."""
    last = list(run(config("margin"), place))[-1]
    learner = last.state.replicates[0].learner
    assert "base_loss.rho" in learner.theta
    assert not learner.phi
    assert set(last.report) >= {"selection/error", "selection/task_loss"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"lowest": 1.0}, "lowest"),
        ({"lowest": 0.0}, "lowest"),
        ({"initial": 2.0}, "initial"),
        ({"importance": "some"}, "importance"),
        ({"lr_factor": 0.0}, "lr_factor"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        method_of(config("margin", **options).learner)


@pytest.mark.parametrize("name", ["margin", "online_margin"])
def test_task_without_labels_is_refused(name: str) -> None:
    settings = config(name)
    setting = Setting(
        config=settings, kind="regression", task=task_of("regression"), outputs=2, theta={}, seed=0, losses=LossFiles()
    )
    method = method_of(settings.learner)

    def built() -> None:
        method.learnable(setting)
        method.base_loss(setting, task_loss("auto", "regression"))

    with pytest.raises(SpecError, match="regression") as caught:
        built()
    assert caught.value.field == "learner.method"
