"""What a spec or a file asks for is counted before it is made: one sentence, no memory, no waiting."""

from __future__ import annotations

import importlib
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from support.commands import Run

from olfl_ray import load_loss
from olfl_ray.errors import DataError
from olfl_ray.memory import host_memory
from olfl_ray.models import bytes_of, names
from olfl_ray.spec import StudySpec, trial_config
from olfl_ray.trial import TrialEnvironment
from olfl_ray.trial.build import build_replicate, load_data

WIDE = [100_000] * 10
JUST = int(
    (host_memory() / (7 * 4)) ** 0.5
)  # units of two layers that fit seven times: a step on the task loss, no more
SPEC: dict[str, Any] = {
    "name": "wide",
    "task": {"dataset": "digits"},
    "search": {"parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
}


def peak() -> int:
    """Most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"task": {"dataset": "digits", "model": {"name": "mlp", "hidden": WIDE}}}, "task.model"),
        ({"task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [10**12, 10**12]}}}, "task.model"),
        ({"task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [JUST, JUST]}}}, "task.model"),
        ({"loss": {"hidden": WIDE}}, "loss.hidden"),
        ({"loss": {"name": "mlp", "hidden": [100_000, 100_000]}}, "loss.hidden"),
    ],
)
def test_what_no_memory_holds_is_refused_before_it_is_made(
    section: dict[str, Any], field: str, tmp_path: Path, here: Run
) -> None:
    if field == "loss.hidden" and host_memory() > 150e9:
        pytest.skip("this machine holds that loss network")
    (tmp_path / "spec.yaml").write_text(json.dumps({**SPEC, **section}))
    held = peak()
    code, _, err = here("sweep", "run", "spec.yaml", "--dry-run", "--home", tmp_path / "home")
    assert (code, err.count("\n")) == (2, 1), err
    assert field in err
    assert "GB" in err
    assert peak() - held < 2e9


def test_a_base_learners_bytes_are_counted_as_it_is_built() -> None:
    shape: dict[str, Any] = {"input_shape": (3, 32, 32), "outputs": 10}
    from olfl_ray.models import build

    for name in ("mlp", "lenet5", "resnet18"):
        assert name in names()
        module = build(name, {}, seed=0, **shape)
        assert bytes_of(name, {}, **shape) == sum(p.numel() * p.element_size() for p in module.parameters())
    assert bytes_of("mine:build", {}, **shape) == 0


def test_counting_draws_no_random_number() -> None:
    before = torch.random.get_rng_state()
    bytes_of("mlp", {"hidden": [64]}, input_shape=(64,), outputs=10)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_file_that_asks_for_more_weights_than_it_has_makes_none(tmp_path: Path) -> None:
    settings = {"format": 1, "kind": "classification", "loss": {"name": "mlp", "hidden": [20_000, 20_000]}}
    (tmp_path / "learned_loss.json").write_text(json.dumps(settings))
    (tmp_path / "learned_loss.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    held = peak()
    with pytest.raises(DataError, match="more weights"):
        load_loss(tmp_path)
    assert peak() - held < 1e9


@pytest.mark.parametrize("what", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(what: str, tmp_path: Path, here: Run) -> None:
    place = Path("/dev/zero") if what == "device" else tmp_path / what
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    code, _, err = here("sweep", "run", place, "--dry-run", "--home", tmp_path / "home")
    assert (code, err.count("\n")) == (2, 1), err
    assert str(place) in err
    assert "is a" in err


def test_a_learned_loss_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("learned_loss.json", "learned_loss.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="pipe"):
        load_loss(tmp_path)


def test_what_is_free_now_is_checked_before_the_start_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Run
) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    # The package's `check` is the function, so the module is found by its name.
    monkeypatch.setattr(importlib.import_module("olfl_ray.trial.check"), "free_memory", lambda: 1000)
    code, _, err = here("sweep", "run", "spec.yaml", "--dry-run", "--home", tmp_path / "home")
    assert (code, err.count("\n")) == (2, 1), err
    assert "free" in err
    config = trial_config(StudySpec.model_validate(SPEC), "online", {}, seeds=(0,))
    place = TrialEnvironment(cache=tmp_path / "data")
    assert build_replicate(config, place, load_data(config, place), 0).outputs == 10


def test_a_builder_without_a_seed_is_refused_before_the_name_is_taken(tmp_path: Path, here: Run) -> None:
    spec = {**SPEC, "task": {"dataset": f"{__name__}:shuffled"}}
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    for words in (["--dry-run"], []):
        code, out, err = here("sweep", "run", "spec.yaml", *words, "--home", tmp_path / "home")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "seed" in err
    assert not (tmp_path / "home" / "studies").exists()
    assert not (tmp_path / "home" / "mlflow.db").exists()


def shuffled() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng().normal(size=(60, 3)), np.arange(60) % 2
