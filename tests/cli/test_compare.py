"""Two studies are compared: paired by seed where data, splits, seeds and metric agree, else with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import Run
from support.json_documents import check, document
from support.written import begun, finished

from olfl_ray.study import Home, Study


def test_two_studies_are_paired_by_seed(olfl: Run, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    finished(home, "a")
    finished(home, "b", 0.005, learner={"steps": 500})
    found = document(olfl, "sweep", "compare", "a", "b", "--home", home.path)
    check("olfl sweep compare", found)
    assert [(one["arm"], one["unpaired"]) for one in found["arms"]] == [("baseline", None), ("online", None)]
    for one in found["arms"]:
        assert one["difference"]["mean"] == pytest.approx(0.005)
        assert one["difference"]["n"] == one["a"]["n"] == one["b"]["n"] == 2
    steps = next(one for one in found["settings"] if one["name"] == "learner.steps")
    assert (steps["a"], steps["b"]) == (900, 500)
    across = document(olfl, "sweep", "compare", "a", "b", "--home", home.path, "--arm", "baseline=online")
    assert [one["other_arm"] for one in across["arms"]] == ["online"]
    assert across["arms"][0]["difference"]["mean"] == pytest.approx(0.005 - 0.01)
    code, out, _ = olfl("sweep", "compare", "a", "b", "--home", home.path)
    assert code == 0
    assert "+0.0050 [" in out
    assert "differs: learner.steps: 900 and 500" in out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "other"}, "other data: digest d and other"),
        ({"seed": 7}, "seed: 0 and 7"),
        ({"task": {"dataset": "digits", "split": {"selection": 0.2}}}, "task.split.selection: 0.1 and 0.2"),
        ({"kind": "regression"}, "task: classification and regression"),
    ],
)
def test_studies_with_other_splits_or_seeds_are_not_paired(
    olfl: Run, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    home = Home(tmp_path / "home")
    finished(home, "a")
    finished(home, "b", **changes)
    first, second = (Study.open(name, home=home) for name in "ab")
    frame = first.compare(second)
    assert frame["unpaired"].str.contains(said, regex=False).all()
    assert frame["difference"].isna().all()
    assert (frame["a_n"] == 2).all()
    assert f"online: not paired: {said}" in olfl("sweep", "compare", "a", "b", "--home", home.path)[1]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"loss": "mine:weighted"}, "task.loss: cross_entropy and mine:weighted"),
        ({"loss": "mine:weighted"}, {"loss": "mine:weighted"}, "code of mine: aaa and bbb"),
        ({}, {"standardize": {"y": False}}, "task.standardize.y: True and False"),
        ({}, {"loss": "cross_entropy"}, None),
        ({}, {"metrics": ["mine:error2"]}, None),
    ],
)
def test_a_metric_that_measures_different_things_is_not_paired(
    first: dict[str, Any], second: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    for name, code, own in (("a", "aaa", first), ("b", "bbb", second)):
        search = {"metric": "selection/task_loss", "parameters": {"learner.optimizer.lr": {"values": [0.01, 0.1]}}}
        finished(home, name, code={"mine": code}, task={"dataset": "digits", **own}, search=search)
    frame = Study.open("a", home=home).compare(Study.open("b", home=home))
    assert (frame["metric"] == "test/task_loss").all()
    if said is None:
        assert frame["unpaired"].isna().all()
        return
    assert frame["unpaired"].str.contains(said, regex=False).all()
    assert frame["difference"].isna().all()


def test_studies_without_a_common_arm_are_refused(olfl: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    begun(home)
    finished(Home(home), "t")
    code, out, err = olfl("sweep", "compare", "s", "t", "--arm", "online=nothing", "--home", home)
    assert (code, out) == (2, "")
    assert "no arm 'nothing'" in err
