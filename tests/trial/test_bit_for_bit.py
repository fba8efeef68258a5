"""A trial is a function of its settings: when repeated, resumed anywhere, or with one replicate at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from olfl_ray import data
from olfl_ray.engine.randomness import RandomState, fresh_random
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import Progress, TrialEnvironment, run, state_from_bytes, state_to_bytes
from olfl_ray.trial.build import build_replicate
from olfl_ray.trial.stepping import Stepper

SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
ADAMW = {"name": "adamw", "lr": 0.005}


def normed(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A user's own model: batch norm, dropout, and a parameter without a gradient."""
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(int(np.prod(input_shape)), 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(12, outputs),
    )
    module[1].bias.requires_grad_(False)
    return module


def small_images(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Images of 16x16, whose class is the bright region."""
    x = np.random.default_rng(0).integers(0, 60, (rows, 1, 16, 16), np.uint8)
    y = np.arange(rows) % 2
    x[y == 1, :, 8:] += 150
    return x, y


def config(method: str, dataset: str = "digits", **changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "task": {"dataset": dataset, "model": {"name": "mlp", "hidden": [16]}, "batch_size": 16},
        "learner": {"method": method, "steps": 12, "optimizer": {"name": "adam", "lr": 0.01}, "deterministic": True},
        "meta": {"init_steps": 8, "eta_online": 1e-3},
        "eval": {"every": 4},
        "seeds": [1],
    }
    for name, value in changes.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return TrialConfig.model_validate(settings)


def comparable(found: list[Progress]) -> list[Any]:
    """A trial's results, without times and machine metrics."""
    return [
        (
            progress.outcome,
            dict(progress.report),
            dict(progress.files),
            [
                (
                    record.step,
                    {key: value for key, value in record.metrics.items() if key not in names.VOLATILE},
                    record.surfaces,
                )
                for record in progress.records
            ],
        )
        for progress in found
    ]


def resumes_bit_for_bit(settings: TrialConfig, place: TrialEnvironment) -> list[Progress]:
    """Interrupt a trial after each record, serialize its state, and compare what follows."""
    uninterrupted = list(run(settings, place))
    assert uninterrupted[-1].outcome == "finished"
    last = state_to_bytes(uninterrupted[-1].state)
    for cut in range(len(uninterrupted) - 1):
        torch.rand(3, device=place.device)  # other draws of the process in between
        rest = list(run(settings, place, state_from_bytes(state_to_bytes(uninterrupted[cut].state), place.device)))
        assert comparable(rest) == comparable(uninterrupted[cut + 1 :])
        assert state_to_bytes(rest[-1].state) == last
    return uninterrupted


@pytest.fixture(scope="module", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    """Prepared data sets, shared; on each available kind of device."""
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"), device=request.param)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_batch_norm_dropout_and_moments_resume(method: str, optimizer: dict[str, Any], place: TrialEnvironment) -> None:
    own = {"model": f"{__name__}:normed"}
    learner = {"method": method, "optimizer": optimizer, "schedule": {"name": "cosine"}}
    uninterrupted = resumes_bit_for_bit(config(method, task=own, learner=learner, meta={"every": 3}), place)
    state = uninterrupted[-1].state.replicates[0]
    assert state.learner.buffers["2.num_batches_tracked"] == 12, "the train pass alone moves the statistics"
    assert not torch.equal(state.rng, uninterrupted[-2].state.replicates[0].rng), "dropout draws"
    assert "1.bias" not in state.learner.theta


@pytest.mark.parametrize("method", ["offline", "online"])
def test_augmented_all_cnn_c_with_dropout_resumes(method: str, place: TrialEnvironment) -> None:
    task = {
        "dataset": f"{__name__}:small_images",
        "model": {"name": "allcnnc", "dropout": 0.5},
        "augment": "crop_flip",
        "batch_size": 4,
    }
    learner = {"method": method, "steps": 3, "optimizer": SGD}
    resumes_bit_for_bit(
        config(method, task=task, learner=learner, meta={"init_steps": 2}, eval={"every": 1, "report": "last"}), place
    )


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_regression_resumes_and_reports_original_units(method: str, place: TrialEnvironment) -> None:
    settings = config(
        method,
        "diabetes",
        seeds=[1, 2],
        confirming=True,
        loss={"name": "ml3"},
        learner={"optimizer": SGD, "method": method},
    )
    uninterrupted = resumes_bit_for_bit(settings, place)
    report = uninterrupted[-1].report
    assert set(report) == {
        f"{part}/{metric}"
        for part in ("selection", "test", "trivial")
        for metric in ("task_loss", "rmse", "mse", "mae", "r2")
    }
    assert all(len(values) == 2 and 30 < values[0] < 200 for values in (report["test/rmse"], report["selection/rmse"]))
    assert report["test/mse"] == pytest.approx(tuple(rmse**2 for rmse in report["test/rmse"]))


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_same_seed_gives_the_same_trial_and_another_seed_another(method: str, place: TrialEnvironment) -> None:
    own = {"model": f"{__name__}:normed"}
    first = comparable(list(run(config(method, task=own), place)))
    torch.rand(5)
    assert comparable(list(run(config(method, task=own), place))) == first
    assert comparable(list(run(config(method, task=own, seeds=[2]), place))) != first


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
def test_replicates_equal_single_runs_of_their_seeds(method: str, dataset: str, place: TrialEnvironment) -> None:
    seeds = [3, 1, 2]
    own = {"dataset": dataset, "model": f"{__name__}:normed"}
    together = list(run(config(method, task=own, seeds=seeds), place))
    for index, seed in enumerate(seeds):
        alone = list(run(config(method, task=own, seeds=[seed]), place))
        assert len(alone) == len(together)
        for one, all_of_them in zip(alone, together, strict=True):
            for record, shared in zip(one.records, all_of_them.records, strict=True):
                for name in record.metrics.keys() - names.VOLATILE:
                    assert record.metrics[name] == (shared.metrics[name][index],), name
            assert one.report == {name: (values[index],) for name, values in all_of_them.report.items()}


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_steps_on_a_state_in_place_are_bit_identical(method: str, place: TrialEnvironment) -> None:
    """As on a GPU, for both algorithms: through two records each, and from the state in between.

    In a captured graph a learning rate is a tensor, which rounds differently; so on a GPU they agree only to rounding.
    """
    off = 0.0 if place.device == "cpu" else 1e-4
    own, learner = {"model": f"{__name__}:normed"}, {"method": method, "schedule": {"name": "cosine"}}
    settings = config(method, task=own, learner=learner, meta={"every": 3, "inner_steps": 2})
    dataset = data.load("digits", {}, cache=place.cache, root=None)
    found = []
    for in_place in (False, True):
        replicate = build_replicate(settings, place, dataset, 1)
        stepper, state, comparable = Stepper(settings, replicate, in_place=in_place), replicate.start, []
        with RandomState(fresh_random(5, torch.device(place.device)), torch.device(place.device)):
            for start in (0, 3) if method != "baseline" else ():
                state, loss = stepper.initialise(state, start, start + 3)
                comparable.append(loss)
            for start in (0, 6):
                state, means = stepper.train(state, start, start + 6)
                comparable.append(means)
        found.append((comparable, state))
    (comparable, state), (other_told, other) = found
    assert comparable == [pytest.approx(one, rel=off, abs=off) for one in other_told]
    for part in ("theta", "buffers", "opt_state", "phi", "meta_state"):
        for name, value in getattr(state, part).items():
            torch.testing.assert_close(getattr(other, part)[name], value, rtol=off, atol=off)
