"""A setting that a method does not use is refused, wherever a spec sets or searches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olfl_ray.errors import SpecError
from olfl_ray.methods import METHODS, check_used
from olfl_ray.spec import StudySpec, read_spec

ROOT = Path(__file__).parents[2]
SWEEPS = [*(ROOT / "sweeps").glob("*.yaml"), *(ROOT / "experiments" / "paper" / "rows").rglob("*_*.yaml")]


def spec(arms: dict[str, dict[str, Any]], **more: Any) -> StudySpec:
    search = {"parameters": more.pop("parameters", {})}
    return StudySpec.model_validate(
        {
            "name": "s",
            "task": {"dataset": "digits"},
            "search": search,
            "arms": {name: {"trials": 1, **arm} for name, arm in arms.items()},
            **more,
        }
    )


def arm(method: str, parameters: dict[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    fields = {key.replace("__", "."): value for key, value in own.items()}
    return {"set": {"learner.method": method, **fields}, "parameters": parameters or {}}


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("baseline", "loss__hidden"),
        ("baseline", "meta__eta_online"),
        ("offline", "meta__every"),
        ("offline", "meta__eta_online"),
        ("focal", "meta__batch"),
        ("online_lr", "loss__hidden"),
        ("online_lr", "meta__estimator"),
    ],
)
def test_an_arm_may_not_set_what_its_method_does_not_use(method: str, field: str) -> None:
    with pytest.raises(SpecError, match=rf"arms\.a\.set\.{field.replace('__', '.')}.*{method}"):
        check_used(spec({"a": arm(method, **{field: 1})}))


def test_an_arm_may_not_search_it() -> None:
    with pytest.raises(SpecError, match=r"arms\.a\.parameters\.loss\.activation\.gamma"):
        check_used(spec({"a": arm("baseline", {"loss.activation.gamma": {"min": 0.1, "max": 0.2}})}))


def test_what_every_arm_searches_every_arm_must_use() -> None:
    arms = {"plain": arm("baseline"), "online": arm("online")}
    with pytest.raises(SpecError, match=r"search\.parameters\.meta\.eta_online.*plain"):
        check_used(spec(arms, parameters={"meta.eta_online": {"min": 0.1, "max": 0.2}}))
    check_used(spec(arms, parameters={"learner.optimizer.lr": {"min": 0.1, "max": 0.2}}))


def test_the_studys_own_settings_must_serve_one_arm_at_least() -> None:
    with pytest.raises(SpecError, match=r"meta\.every.*offline"):
        check_used(spec({"a": arm("offline")}, meta={"every": 3}))
    check_used(spec({"a": arm("offline"), "b": arm("online")}, meta={"every": 3}))
    with pytest.raises(SpecError, match=r"loss\.from"):
        check_used(spec({"a": arm("baseline")}, loss={"from": "x"}))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_use_all_that_they_set(path: Path) -> None:
    check_used(read_spec(path))


def test_each_method_says_what_it_learns_and_when() -> None:
    learned = {
        name: (METHODS.find(name, "f").phi, METHODS.find(name, "f").before, METHODS.find(name, "f").during)
        for name in METHODS.names()
    }
    assert learned == {
        "baseline": ("nothing", False, False),
        "fine_tune": ("nothing", False, False),
        "focal": ("nothing", False, False),
        "group_penalty": ("nothing", False, False),
        "label_blocks": ("nothing", False, False),
        "label_smoothing": ("nothing", False, False),
        "learned_weights": ("head_weights", False, True),
        "margin": ("nothing", False, False),
        "meta_sparsity": ("group strength", True, True),
        "offline": ("loss", True, False),
        "online": ("loss", True, True),
        "online_lr": ("learning_rate", True, True),
        "online_margin": ("margins", False, True),
        "poly1": ("nothing", False, False),
        "uncertainty": ("nothing", False, False),
        "weighted": ("nothing", False, False),
    }
