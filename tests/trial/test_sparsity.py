"""Trials with group penalties: strength 0 is plain training, all of it resumes, and sparsity is recorded."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from olfl_ray.errors import DataError, SpecError
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import (
    Progress,
    TrialEnvironment,
    model_to_bytes,
    pruned_model,
    run,
    speed,
    state_from_bytes,
    state_to_bytes,
    trained_model,
)

SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
PROX_SGD = {"name": "prox_sgd", "lr": 0.05, "momentum": 0.9}
PROX_ADAM = {"name": "prox_adam", "lr": 0.01}

SEVERAL = {
    "dataset": "digits-tasks",
    "options": {"heads": ["digit", "ink"], "subsets": "random"},
    "model": {"name": "multihead", "hidden": [12]},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    """Prepared data sets, shared."""
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def _config(
    method: str,
    optimizer: dict[str, Any],
    options: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"batch_size": 16, **(task or {"dataset": "digits", "model": {"name": "mlp", "hidden": [16]}})},
            "learner": {"method": method, "options": options or {}, "steps": 12, "optimizer": optimizer},
            "meta": {"init_steps": 4, "inner_steps": 2, "eta_init": 0.1, "eta_online": 0.05},
            "eval": {"every": 4, "report": "last"},
            "seeds": [1],
            "confirming": True,
        }
    )


def _theta(found: list[Progress]) -> dict[str, torch.Tensor]:
    return found[-1].state.replicates[0].learner.theta


@pytest.mark.parametrize("task", [None, SEVERAL])
def test_fixed_strength_of_zero_is_the_baseline_bit_for_bit(
    task: dict[str, Any] | None, place: TrialEnvironment
) -> None:
    plain = _theta(list(run(_config("baseline", SGD, task=task), place)))
    for method, optimizer, options in (
        ("group_penalty", SGD, {"strength": 0.0}),
        ("baseline", {**PROX_SGD, "strength": 0.0}, {}),
    ):
        found = _theta(list(run(_config(method, optimizer, options, task), place)))
        assert all(torch.equal(value, plain[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("method", "optimizer", "options", "task"),
    [
        ("meta_sparsity", SGD, {"strength": 0.02}, SEVERAL),
        ("meta_sparsity", {"name": "adam", "lr": 0.01}, {"hook": "penalty"}, None),
        ("baseline", {**PROX_ADAM, "strength": 0.02}, {}, None),
    ],
)
def test_interrupted_trial_resumes_bit_for_bit(
    method: str,
    optimizer: dict[str, Any],
    options: dict[str, Any],
    task: dict[str, Any] | None,
    place: TrialEnvironment,
) -> None:
    settings = _config(method, optimizer, options, task)
    uninterrupted = list(run(settings, place))
    last = state_to_bytes(uninterrupted[-1].state)
    for cut in range(len(uninterrupted) - 1):
        rest = list(run(settings, place, state_from_bytes(state_to_bytes(uninterrupted[cut].state))))
        assert state_to_bytes(rest[-1].state) == last
        assert rest[-1].report == uninterrupted[-1].report


def test_strength_and_sparsity_are_recorded_and_reported(place: TrialEnvironment) -> None:
    found = list(run(_config("meta_sparsity", SGD, {"strength": 0.3}), place))
    trained = [record.metrics for progress in found for record in progress.records if progress.state.step]
    strengths = [metrics["phi/strength"][0] for metrics in trained]
    assert len(set(strengths)) == len(strengths) == 3
    sparsity = found[-1].report["test/group_sparsity"][0]
    assert 0 < sparsity < 1
    assert trained[-1]["selection/group_sparsity"] == (sparsity,)
    assert found[-1].report["test/weight_sparsity"][0] > 0
    assert f"{names.TRIVIAL_PREFIX}group_sparsity" not in found[-1].report


def test_pruned_model_is_exported_smaller_with_the_same_outputs(place: TrialEnvironment) -> None:
    settings = _config("baseline", {**PROX_SGD, "strength": 0.3})
    dense = trained_model(settings, place, list(run(settings, place))[-1].state)
    small = pruned_model(dense)
    x = dense.example(64)
    torch.testing.assert_close(small(x), dense(x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        next(dense.parameters())[0, 0] = 1e-40  # subnormal: timed as 0, but kept
    found = speed(dense, small, seconds=0.05)
    assert next(dense.parameters())[0, 0] > 0
    assert found.pruned_weights < found.dense_weights
    assert found.factor > 0
    assert small.predict(x) == dense.predict(x)
    graph = torch.export.load(io.BytesIO(model_to_bytes(small, "pt2"))).module()
    torch.testing.assert_close(graph(x), dense(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="pt2 or onnx"):
        model_to_bytes(small, "safetensors")


@pytest.mark.parametrize(
    ("method", "optimizer", "options", "field"),
    [
        ("baseline", {**PROX_SGD, "layers": ["features.*"]}, {}, "learner.optimizer.layers"),
        ("meta_sparsity", SGD, {"layers": ["features.*"]}, "learner.options.layers"),
        ("group_penalty", SGD, {"layers": ["0.bias"]}, "learner.options.layers"),
        ("meta_sparsity", PROX_ADAM, {}, "learner.optimizer.strength"),
    ],
)
def test_patterns_and_strengths_that_can_not_be_meant_are_refused(
    method: str, optimizer: dict[str, Any], options: dict[str, Any], field: str, place: TrialEnvironment
) -> None:
    with pytest.raises(SpecError) as error:
        next(run(_config(method, optimizer, options), place))
    assert error.value.field == field
