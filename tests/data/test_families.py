"""A family of tasks: each replicate has a task of its own, each round of Algorithm 1 another; nothing is scaled."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from olfl_ray import data
from olfl_ray.errors import SpecError
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment
from olfl_ray.trial.build import build_replicate, load_data


def line(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(0, 100, 40)[:, None]
    return x, x * float(seed % 1000)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("users_family")
    module.build = lambda **settings: data.Dataset(
        **{"name": "lines", "kind": "regression", "episode": line, **settings}
    )  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_family", module)
    data.forget()
    return module


def replicates(tmp_path: Path, *seeds: int) -> list[Any]:
    config = TrialConfig.model_validate(
        {"task": {"dataset": "users_family:build", "split": {"test": 0.25, "meta": 0.4, "selection": 0.3}}}
        | {"learner": {"method": "online"}, "metric": "selection/mse"}
    )
    place = TrialEnvironment(cache=tmp_path)
    return [build_replicate(config, place, load_data(config, place), seed) for seed in seeds]


def slope(given: Any, part: str) -> float:
    x, y = given.evaluation(part)
    return float(y[-1] / x[-1])


def test_each_replicate_and_each_round_draws_its_own_task_for_all_splits(family: ModuleType, tmp_path: Path) -> None:
    one, other, again = replicates(tmp_path, 1, 2, 1)
    slopes = {slope(one.data, part) for part in ("train", "meta", "selection", "test")}
    assert len(slopes) == 1
    assert slope(one.data, "train") == slope(again.data, "train") != slope(other.data, "train")
    rounds = [slope(one.episode(index), "meta") for index in range(5)]
    assert len({*rounds, *slopes}) == 6
    assert rounds == [slope(again.episode(index), "meta") for index in range(5)]


def test_a_batch_is_the_complete_split_unchanged(family: ModuleType, tmp_path: Path) -> None:
    (found,) = replicates(tmp_path, 1)
    x, y = found.data.batch("train", "train", 0)
    given = line(0)[0][:, 0].tolist()
    assert len(x) == 9
    assert set(x[:, 0].tolist()) <= set(given)
    assert found.data.target_scale is None
    assert torch.equal(found.data.batch("train", "train", 7)[1], y)


def test_an_ordinary_data_set_is_its_own_only_episode(tmp_path: Path) -> None:
    found = data.load("digits", {}, cache=tmp_path, root=None)
    assert data.episode(found, 3) is found


def test_unscaled_data_are_unchanged(family: ModuleType, tmp_path: Path) -> None:
    x, y = line(3)
    family.build = lambda: data.Dataset(name="line", kind="regression", x=x, y=y, scaled=False)  # type: ignore[attr-defined]
    (found,) = replicates(tmp_path, 1)
    assert slope(found.data, "test") == pytest.approx(3)
    assert len(found.data.batch("train", "train", 0)[0]) == 64


@pytest.mark.parametrize(
    ("episode", "says"),
    [
        (lambda seed: torch.ones(3), r"seed 0 must be \(x, y\)"),
        (lambda seed: (torch.ones(20 + seed, 2), torch.ones(20 + seed, 1)), "same shapes"),
        (lambda seed: 1 / 0, "seed 0 raised ZeroDivisionError"),
    ],
)
def test_invalid_episodes_are_refused(family: ModuleType, tmp_path: Path, episode: Any, says: str) -> None:
    family.build = lambda: data.Dataset(name="lines", kind="regression", episode=episode)  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match=rf"^task\.dataset: .*{says}"):
        replicates(tmp_path, 1)


def test_nondeterministic_episodes_are_refused(family: ModuleType, tmp_path: Path) -> None:
    family.build = lambda: data.Dataset(  # type: ignore[attr-defined]
        name="lines", kind="regression", episode=lambda seed: (torch.rand(20, 2), torch.rand(20, 1))
    )
    with pytest.raises(SpecError, match=r"^task\.dataset: .*fixed seed"):
        data.check_repeatable("users_family:build", {})
