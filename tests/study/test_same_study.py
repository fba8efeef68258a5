"""When a later start is of the same study: its spec, its arms, its data and its code."""

from __future__ import annotations

from typing import Any

import pytest

from olfl_ray.driver.check import check_facts, check_same, extended
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Examined, StudyState
from olfl_ray.methods import complete
from olfl_ray.spec import StudySpec


def spec(**changes: Any) -> StudySpec:
    study = StudySpec.model_validate(
        {
            "name": "same",
            "task": {"dataset": "digits"},
            "search": {"parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
            "arms": {"baseline": {"trials": 2, "set": {"learner.method": "baseline"}}, "online": {"trials": 2}},
            **changes,
        }
    )
    return complete(study)


def arms(**more: Any) -> dict[str, Any]:
    return {**spec().model_dump(mode="json", by_alias=True)["arms"], **more}


def same(new: StudySpec) -> None:
    begun = spec()
    check_same(new, begun.model_dump(mode="json", by_alias=True), begun.digest)


def facts(**changes: Any) -> Examined:
    values: dict[str, Any] = {"data": "d" * 64, "code": {"mine": "c" * 64}, "task": "classification"}
    return Examined(arm="online", primary="error", goals={}, units={}, learns=True, **(values | changes))


def begun_with(found: Examined) -> StudyState:
    return StudyState(name="same", digest="", spec={}, versions={}, created_at=0.0, facts={"online": found})


def test_arms_may_be_added() -> None:
    more = spec(arms=arms(offline={"trials": 1, "set": {"learner.method": "offline"}}))
    same(more)
    assert more.digest != spec().digest


def test_more_trials_and_other_resources_are_the_same_study() -> None:
    same(spec(arms=arms(online={"trials": 9}), confirm={"seeds": 3}, budget={"study_seconds": 5.0}))


def test_an_arm_can_not_be_removed() -> None:
    with pytest.raises(StudyError, match=r"arms:.*baseline"):
        same(spec(arms={"online": {"trials": 2}}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"eval": {"every": 7}}, "eval.every"),
        ({"learner": {"steps": 7}}, "learner.steps"),
        ({"task": {"dataset": "diabetes"}}, "task.dataset.name"),
    ],
)
def test_another_setting_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(StudyError, match=field):
        same(spec(**changes))


def test_an_arm_that_was_begun_can_not_change() -> None:
    with pytest.raises(StudyError, match=r"arms\.online\.set\.learner\.steps"):
        same(spec(arms=arms(online={"trials": 2, "set": {"learner.steps": 7}})))


def test_a_study_of_another_version_is_refused_by_name() -> None:
    begun = spec()
    with pytest.raises(StudyError, match="version"):
        check_same(begun, begun.model_dump(mode="json", by_alias=True), "0" * 64)
    with pytest.raises(StudyError, match="version"):
        check_same(begun, {"name": "same", "gone": 1}, "0" * 64)


def test_the_same_data_and_code_go_on() -> None:
    check_facts({"online": facts(), "new": facts(data="e" * 64)}, begun_with(facts()))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": "e" * 64}, "data"),
        ({"task": "regression"}, "task"),
        ({"code": {"mine": "e" * 64}}, "mine"),
        ({"code": {}}, "mine"),
        ({"code": {"mine": "c" * 64, "other": "o" * 64}}, "other"),
    ],
)
def test_changed_data_and_changed_code_are_refused_with_both_digests(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(StudyError, match=word) as refused:
        check_facts({"online": facts(**changes)}, begun_with(facts()))
    assert "online" in str(refused.value)


def test_one_arm_may_be_extended_alone() -> None:
    assert {name: arm.trials for name, arm in extended(spec(), 3, "online").arms.items()} == {
        "baseline": 2,
        "online": 5,
    }
    assert {arm.trials for arm in extended(spec(), 3, None).arms.values()} == {5}
    with pytest.raises(StudyError, match="onlin"):
        extended(spec(), 3, "onlin")
    with pytest.raises(StudyError, match="at least 1"):
        extended(spec(), 0, None)
