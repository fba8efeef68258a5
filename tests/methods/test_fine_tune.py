"""Training that starts from another trial's backbone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from olfl_ray.errors import SpecError
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment, run
from olfl_ray.trial.build import build_replicate, load_data
from olfl_ray.trial.export import model_to_bytes
from olfl_ray.trial.model import trained_model

MODEL = {"name": "multihead", "hidden": [8]}


def config(heads: list[str], method: str = "baseline", **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"dataset": "digits-tasks", "model": changes.get("model", MODEL), "options": {"heads": heads}},
            "learner": {"method": method, "options": changes.get("options", {}), "steps": 10, "optimizer": "adam"},
            "eval": {"every": 5},
            "seeds": [1],
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def exported(place: TrialEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base learner trained on two of the tasks."""
    settings = config(["digit", "ink"])
    path = tmp_path_factory.mktemp("exported") / "seen.safetensors"
    state = list(run(settings, place))[-1].state
    path.write_bytes(model_to_bytes(trained_model(settings, place, state), "safetensors"))
    return path


def tuned(exported: Path, **options: Any) -> TrialConfig:
    digest = hashlib.sha256(exported.read_bytes()).hexdigest()[:12]
    given = {"model": str(exported), "digest": digest, **options}
    return config(["at_least_5"], "fine_tune", options=given)


def test_unseen_task_starts_from_the_trained_backbone(exported: Path, place: TrialEnvironment) -> None:
    settings = tuned(exported)
    replicate = build_replicate(settings, place, load_data(settings, place), 1)
    begun = replicate.problem.starting({}, {}, replicate.start.theta)
    before = list(run(config(["digit", "ink"]), place))[-1].state.replicates[0].best
    assert before is not None
    assert torch.equal(begun["backbone.1.weight"], before.theta["backbone.1.weight"])
    assert torch.equal(begun["heads.at_least_5.0.weight"], replicate.start.theta["heads.at_least_5.0.weight"])
    assert list(run(settings, place))[-1].outcome == "finished"


def test_file_is_part_of_the_study(exported: Path, place: TrialEnvironment, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()[:12]
    for options, field in (
        ({"digest": ""}, "digest"),
        ({"digest": "0123456789ab"}, "digest"),
        ({"model": str(other), "digest": digest}, "model"),
        ({"model": str(tmp_path / "none")}, "model"),
        ({"model": "seen.safetensors"}, "model"),
        ({"parts": ["body"]}, "parts"),
    ):
        settings = tuned(exported, **options)
        with pytest.raises(SpecError) as found:
            build_replicate(settings, place, load_data(settings, place), 1)
        assert found.value.field == f"learner.options.{field}"


def test_other_backbone_is_refused(exported: Path, place: TrialEnvironment) -> None:
    options = tuned(exported).learner.options
    settings = config(["at_least_5"], "fine_tune", options=options, model={"name": "multihead", "hidden": [9]})
    with pytest.raises(SpecError, match=r"backbone\.1\.weight"):
        build_replicate(settings, place, load_data(settings, place), 1)
