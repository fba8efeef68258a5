"""One trial: resumes from its state bit for bit, and never sees the test split unless it confirms."""

from pathlib import Path

import pytest
import torch

from olfl_ray import data
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes


def config(method: str, **changes) -> TrialConfig:
    settings = {
        "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [16]}, "batch_size": 16},
        "learner": {"method": method, "steps": 30, "optimizer": {"name": "adam", "lr": 0.01}},
        "meta": {"init_steps": 20, "eta_online": 1e-3},
        "eval": {"every": 10},
        "seeds": [1, 2],
    }
    return TrialConfig.model_validate({**settings, **changes})


def strip(progress) -> list:
    return [
        (record.step, {name: values for name, values in record.metrics.items() if name not in names.VOLATILE})
        for record in progress.records
    ]


@pytest.mark.parametrize("method", ["baseline", "offline", "online", "online_lr"])
def test_resumed_trial_equals_uninterrupted_trial(method: str, tmp_path: Path) -> None:
    place = TrialEnvironment(cache=tmp_path)
    uninterrupted = list(run(config(method), place))
    assert uninterrupted[-1].outcome == "finished"
    for cut in range(len(uninterrupted) - 1):
        state = state_from_bytes(state_to_bytes(uninterrupted[cut].state))
        rest = list(run(config(method), place, state))
        assert [strip(one) for one in rest] == [strip(other) for other in uninterrupted[cut + 1 :]]


def test_online_trial_learns_phi_and_offline_keeps_it(tmp_path: Path) -> None:
    place = TrialEnvironment(cache=tmp_path)
    for method, moves in (("online", True), ("offline", False)):
        found = list(run(config(method), place))
        before, after = found[1].state.replicates[0].learner.phi, found[-1].state.replicates[0].learner.phi
        assert any(not torch.equal(value, after[name]) for name, value in before.items()) == moves


def test_cached_phi_gives_the_same_records(tmp_path: Path) -> None:
    kept: dict[str, bytes] = {}

    class Cache:
        def get(self, key: str) -> bytes | None:
            return kept.get(key)

        def put(self, key: str, value: bytes) -> None:
            kept.setdefault(key, value)

    place = TrialEnvironment(cache=tmp_path)
    first = [entry for progress in run(config("offline"), place, None, Cache()) for entry in strip(progress)]
    assert len(kept) == 1
    again = [entry for progress in run(config("online"), place, None, Cache()) for entry in strip(progress)]
    third = [entry for progress in run(config("offline"), place, None, Cache()) for entry in strip(progress)]
    assert third == first
    assert again[:2] == first[:2]


def test_only_confirming_trials_touch_the_test_split(tmp_path: Path) -> None:
    place = TrialEnvironment(cache=tmp_path)
    assert "test/error" not in list(run(config("baseline"), place))[-1].report
    assert "test/error" in list(run(config("baseline", confirming=True), place))[-1].report


def test_divergence_is_an_outcome(tmp_path: Path) -> None:
    learner = {"method": "baseline", "steps": 200, "optimizer": {"name": "sgd", "lr": 1e30}}
    found = list(run(config("baseline", learner=learner), TrialEnvironment(cache=tmp_path)))
    assert found[-1].outcome == "diverged"
    assert found[-1].state.step < 200


def test_test_examples_are_in_no_other_split_of_any_replicate(tmp_path: Path) -> None:
    dataset = data.load("digits", {}, cache=tmp_path, root=None)
    held = None
    for seed in range(4):
        found = data.split(dataset, study_seed=7, seed=seed, test=0.2, meta=0.1, selection=0.1)
        held = set(found.test.tolist()) if held is None else held
        assert set(found.test.tolist()) == held
        parts = [set(getattr(found, name).tolist()) for name in ("train", "meta", "selection")]
        assert sum(map(len, parts)) + len(held) == len(dataset.y) == len(set.union(held, *parts))


def test_batches_depend_on_the_step_alone(tmp_path: Path) -> None:
    dataset = data.load("digits", {}, cache=tmp_path, root=None)
    splits = data.split(dataset, study_seed=0, seed=0, test=0.2, meta=0.1, selection=0.1)
    one, other = (data.TaskData(dataset, splits, device="cpu", augment="none", batch_size=8, seed=3) for _ in range(2))
    forward = {step: one.batch("train", "train", step) for step in (0, 255, 256, 900)}
    for step in (900, 0, 256, 255):
        assert torch.equal(other.batch("train", "train", step)[0], forward[step][0])
    assert not torch.equal(forward[0][0], forward[256][0])
