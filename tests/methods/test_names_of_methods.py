"""A method is found by its name or as a user's class; a wrong name is refused where the spec has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import in_process

from olfl_ray.errors import SpecError
from olfl_ray.losses import task_loss
from olfl_ray.methods import Method, check_used
from olfl_ray.spec import StudySpec
from olfl_ray.study.single import builders_of

SPEC = """name: s
task: {dataset: digits}
learner:
  method: METHOD
search: {parameters: {}}
arms:
  plain: {trials: 1, set: {learner.method: baseline}}
  other:
    trials: 1
    set:
      OWN
"""

SET = "arms.other.set.learner.method=onlin"


class Own(Method):
    """A user's method, which reads nothing besides what every method does."""

    phi = "nothing"


def spec(**arm: Any) -> StudySpec:
    return StudySpec.model_validate(
        {"name": "s", "task": {"dataset": "digits"}, "search": {"parameters": {}}, "arms": {"a": {"trials": 1, **arm}}}
    )


@pytest.mark.parametrize(
    ("arm", "field"),
    [
        ({"set": {"learner.method": "onlin"}}, "arms.a.set.learner.method"),
        ({"parameters": {"learner.method": {"values": ["online", "onlin"]}}}, "arms.a.parameters.learner.method"),
    ],
)
def test_a_wrong_name_is_refused_with_the_field_and_the_nearest_name(arm: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError, match="did you mean 'online'") as caught:
        check_used(spec(**arm))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("arm", "field"),
    [
        ({"set": {"meta.estimator": "revers"}}, "arms.a.set.meta.estimator"),
        ({"parameters": {"meta.estimator": {"values": ["auto", "revers"]}}}, "arms.a.parameters.meta.estimator"),
    ],
)
def test_so_is_a_wrong_name_of_an_estimator(arm: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError, match="did you mean 'reverse'") as caught:
        check_used(spec(**arm))
    assert caught.value.field == field
    with pytest.raises(SpecError, match="subclass of NamedEstimator"):
        check_used(spec(set={"meta.estimator": f"{__name__}:Own"}))


def test_a_users_method_is_checked_as_a_built_in_one_is() -> None:
    check_used(spec(set={"learner.method": f"{__name__}:Own"}))
    with pytest.raises(SpecError, match=r"arms\.a\.set\.meta\.every.*Own"):
        check_used(spec(set={"learner.method": f"{__name__}:Own", "meta.every": 2}))
    with pytest.raises(SpecError, match="subclass of Method"):
        check_used(spec(set={"learner.method": f"{__name__}:spec"}))


def test_what_one_of_the_searched_methods_uses_may_be_set() -> None:
    methods = {"learner.method": {"values": ["baseline", "online"]}}
    check_used(spec(parameters=methods, set={"meta.every": 2}))
    with pytest.raises(SpecError, match=r"meta\.every.*baseline, offline"):
        check_used(
            spec(parameters={"learner.method": {"values": ["baseline", "offline"]}}, set={"meta.every": 2}),
        )


def test_a_study_without_arms_has_one_named_after_the_class() -> None:
    given = {"name": "s", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
    assert list(StudySpec.model_validate({**given, "learner": {"method": "mine.file:Own"}}).arms) == ["Own"]


@pytest.mark.parametrize(
    ("method", "own", "where", "hint", "more"),
    [
        ("onlin", "learner.steps: 5", "s.yaml:4: learner.method: ", "'online'", []),
        ("online", "learner.method: offlin", "s.yaml:11: arms.other.set.learner.method: ", "'offline'", []),
        ("online", "meta.estimator: exactt", "s.yaml:11: arms.other.set.meta.estimator: ", "'exact'", []),
        ("online", "task.loss: crossentropy", "s.yaml:11: arms.other.set.task.loss: ", "'cross_entropy'", []),
        ("baseline", "meta.every: 2", "s.yaml:11: arms.other.set.meta.every: ", "remove", []),
        (
            "online",
            "learner.steps: 5",
            "--set: arms.other.set.learner.method: ",
            "'online'",
            ["arms.other.set.learner.method=onlin"],
        ),
    ],
)
def test_the_command_line_names_the_line_in_the_file(
    method: str,
    own: str,
    where: str,
    hint: str,
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = in_process(monkeypatch, capfd, tmp_path)
    (tmp_path / "s.yaml").write_text(SPEC.replace("METHOD", method).replace("OWN", own))
    code, _, said = run("sweep", "run", "s.yaml", "--dry-run", *(word for text in more for word in ("--set", text)))
    assert code == 2
    assert where in said
    assert hint in said


def test_a_task_loss_is_one_of_the_tasks() -> None:
    with pytest.raises(SpecError, match="did you mean 'cross_entropy'") as caught:
        task_loss("crossentropy", "classification")
    assert caught.value.field == "task.loss"


def test_a_trial_of_a_study_names_its_method_and_metrics_among_its_code() -> None:
    from olfl_ray.spec import trial_config

    own = {"learner.method": "a.b:C", "meta.estimator": "a.b:E", "task.metrics": ["a.b:d"]}
    found = trial_config(spec(set=own), "a", {}, seeds=(0,))
    assert builders_of(found) == {"learner.method": "a.b:C", "meta.estimator": "a.b:E", "task.metrics.0": "a.b:d"}
