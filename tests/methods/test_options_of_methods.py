"""A method's own settings: `learner.options`, checked against its `Config`."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods import Method, Setting, check_used, method_of
from olfl_ray.search import scattered
from olfl_ray.spec import Strict, StudySpec, resolve_search, trial_config


class Decay(Learnable):
    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = nn.Parameter(nn.init.constant_(nn.Parameter().new_empty(()), strength))

    def penalty(self, theta: Params) -> Any:
        return self.strength * sum(value.square().sum() for value in theta.values())


class LearnedDecay(Method):
    class Config(Strict):
        strength: float = 0.1

    during = True
    uses = ("meta",)

    def learnable(self, setting: Setting) -> Learnable:
        return Decay(self.config.strength)


NAME = f"{__name__}:LearnedDecay"


def spec(**sections: Any) -> StudySpec:
    base: dict[str, Any] = {"name": "s", "task": {"dataset": "digits"}, "search": {"parameters": {}}}
    return StudySpec.model_validate(base | sections)


def test_an_option_reaches_the_learnable() -> None:
    study = spec(learner={"method": NAME, "options": {"strength": 0.5}}, arms={"a": {"trials": 1}})
    check_used(study)
    learner = trial_config(study, "a", {}, seeds=(0,)).learner
    assert method_of(learner).config.strength == 0.5
    assert method_of(learner.model_copy(update={"options": {}})).config.strength == 0.1


def test_an_option_may_be_searched_and_set_by_an_arm() -> None:
    searched = {"learner.options.strength": {"min": 0.1, "max": 1.0}}
    study = spec(
        arms={
            "a": {
                "trials": 2,
                "set": {"learner.method": NAME, "learner.options": {"strength": 0.2}},
                "parameters": searched,
            }
        }
    )
    check_used(study)
    config = trial_config(study, "a", {"learner.options.strength": 0.7}, seeds=(0,))
    assert method_of(config.learner).config.strength == 0.7


@pytest.mark.parametrize(
    ("options", "says"),
    [({"strenght": 1.0}, r"\.strenght: .*did you mean .*strength"), ({"strength": "high"}, r"\.strength: .*number")],
)
def test_a_wrong_option_is_refused_where_the_spec_has_it(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=rf"^learner\.options{says}"):
        check_used(spec(learner={"method": NAME, "options": options}, arms={"a": {"trials": 1}}))
    arms = {"a": {"trials": 1, "set": {"learner.method": NAME, "learner.options": options}}}
    with pytest.raises(SpecError, match=rf"^arms\.a\.set\.learner\.options{says}"):
        check_used(spec(arms=arms))


def test_a_method_without_settings_takes_none() -> None:
    with pytest.raises(SpecError, match=r"^learner\.options\.strength: .*it has none"):
        check_used(spec(learner={"options": {"strength": 0.5}}, arms={"a": {"trials": 1}}))


def test_no_options_are_no_part_of_a_studys_identity() -> None:
    plain, given = spec(), spec(learner={"options": {}})
    assert "options" not in plain.identity()["learner"]
    assert plain.digest == given.digest
    assert plain.digest != spec(learner={"options": {"strength": 0.5}}).digest


def searching(parameters: dict[str, Any], **own: Any) -> StudySpec:
    own = {"learner.method": "focal", **own}
    return resolve_search(spec(arms={"a": {"trials": 2, "set": own, "parameters": parameters}}))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"learner.options.gama": {"min": 0.5, "max": 2.0}}, r"\.gama: .*did you mean .*learner\.options\.gamma"),
        ({"learner.options.gamma": {"min": -0.5, "max": 2.0}}, r"\.gamma: .*greater than or equal to 0.*-0\.5"),
        ({"learner.options.gamma": {"values": [1.0, "high"]}}, r"\.gamma: .*number.*high"),
        ({"learner.options.gamma": {"min": 0, "max": 5}}, r"\.gamma: .*whole numbers.*min: 0\.0"),
        ({"learner.options": {"values": [{"gamma": 1.0}, {"gama": 2.0}]}}, r"\.gama: .*did you mean"),
    ],
)
def test_a_searched_option_is_checked_at_its_extremes(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=rf"^arms\.a\.parameters\.learner\.options{says}"):
        check_used(searching(parameters))


def test_a_range_is_of_floats_where_the_spec_gives_a_float() -> None:
    found = searching({"learner.options.gamma": {"min": 0, "max": 5}}, **{"learner.options": {"gamma": 2.0}})
    check_used(found)
    assert isinstance(found.arms["a"].parameters["learner.options.gamma"].min, float)


def test_where_the_method_is_searched_too_each_option_is_searched_of_its_own() -> None:
    methods = {"learner.method": {"values": ["baseline", "focal", "poly1"]}}
    gamma = {"min": 0.5, "max": 5.0}
    with pytest.raises(SpecError, match=r"^arms\.a\.parameters\.learner\.options\.gamma: with .* baseline.*when"):
        check_used(searching({**methods, "learner.options.gamma": gamma}))
    gamma["when"] = {"learner.method": "focal"}  # type: ignore[assignment]
    epsilon = {"min": -1.0, "max": 6.0, "when": {"learner.method": "poly1"}}
    found = searching({**methods, "learner.options.gamma": gamma, "learner.options.epsilon": epsilon})
    check_used(found)
    points = scattered(found, "a", 30)
    assert {tuple(sorted(point)) for point in points} == {
        ("learner.method",),
        ("learner.method", "learner.options.gamma"),
        ("learner.method", "learner.options.epsilon"),
    }
    for point in points:
        method_of(trial_config(found, "a", point, seeds=(0,)).learner)
